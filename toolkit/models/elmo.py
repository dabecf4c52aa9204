"""ELMo: a bidirectional LSTM language model over words that are spelled in bytes.

Peters, Neumann, Iyyer, Gardner, Clark, Lee & Zettlemoyer (2018), "Deep contextualized word representations",
https://arxiv.org/abs/1802.05365.

The input is a sequence of *pieces*, one per byte, as `toolkit tokenizer --kind bytes` makes them. A piece whose id is
at least `config.first_continuation_id` continues the word before it. The model gathers pieces into words, runs the
language model over words, and gives every piece the state of its word: logits and offsets have one row per piece.

Shape legend: B batch, P pieces, W words, D distinct words of the batch, L bytes of a word, H `hidden_size` of one
direction, N predicted words, K negatives, V output words.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import ModelOutput

from .elmo_characters import ElmoCharacterEncoder, WordCache
from .heads import ScalarMix, TextClassifierMixin, mean_and_maximum
from .pieces import find_words, gather_rows
from .sampled_softmax import SampledSoftmax

LOGIT_ROWS = 1024  # words whose logits are in memory at a time
HASH_MULTIPLIER = 6364136223846793005  # of Knuth's MMIX generator


class ElmoConfig(PreTrainedConfig):
    """Sizes of an ELMo; `hidden_size` is the width of one direction, the encoder's output is twice as wide."""

    model_type = "toolkit-elmo"

    vocab_size: int = 517  # pieces: 5 special, 256 bytes that start a word, 256 that continue one
    first_continuation_id: int = 261
    output_vocab_size: int = 30000  # words that the language model predicts, the most frequent first
    char_embedding_size: int = 16
    char_filters: list[list[int]] | None = None  # [width in bytes, number of filters]
    max_word_length: int = 40  # bytes of a word that are read; the rest is cut off
    num_highway_layers: int = 1
    hidden_size: int = 256
    num_hidden_layers: int = 2
    hidden_dropout_prob: float = 0.1
    classifier_dropout: float = 0.3
    initializer_range: float = 0.02
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        if self.char_filters is None:
            self.char_filters = [[1, 32], [2, 64], [3, 96], [4, 128], [5, 160], [6, 192]]
        super().__post_init__(**kwargs)


@dataclass
class ElmoOutput(BaseModelOutput):
    """Output of the encoder: `last_hidden_state` and each of `hidden_states`, from the character encoder up, are
    (B, P, 2H) if asked for."""

    word_states: tuple[torch.Tensor, ...] | None = None  # one (B, W, 2H) per layer
    word_index: torch.Tensor | None = None  # (B, P), the word that each piece belongs to
    word_mask: torch.Tensor | None = None  # (B, W), False for padding
    state: torch.Tensor | None = None  # (B, 2 * layers, H), final hidden and cell states of the recurrent direction


@dataclass
class ElmoForPreTrainingOutput(ModelOutput):
    """Output of the language model: `loss` with labels, logits without."""

    loss: torch.Tensor | None = None  # mean negative log-likelihood of both directions, in nats per predicted word
    forward_logits: torch.Tensor | None = None  # (B, W - 1, V), of words 2 to W
    backward_logits: torch.Tensor | None = None  # (B, W - 1, V), of words 1 to W - 1
    state: torch.Tensor | None = None  # as in `ElmoOutput`


class ElmoPreTrainedModel(PreTrainedModel):
    config_class = ElmoConfig
    base_model_prefix = "elmo"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if "weight_hh" in name:
                    for gate in range(4):
                        size = parameter.shape[1]
                        init.orthogonal_(parameter[gate * size : (gate + 1) * size])
                elif "weight_ih" in name:
                    init.xavier_uniform_(parameter)
                else:
                    init.zeros_(parameter)
                    if "bias_ih" in name:  # the forget gate starts open (Gers, Schmidhuber & Cummins 2000)
                        init.ones_(parameter[parameter.shape[0] // 4 : parameter.shape[0] // 2])
        elif isinstance(module, ElmoCharacterEncoder):
            module.initialize()
        elif isinstance(module, ScalarMix):
            init.zeros_(module.weights)
            init.ones_(module.scale)
        elif not isinstance(module, (nn.Conv1d, nn.Embedding)):
            super()._init_weights(module)


class ElmoModel(ElmoPreTrainedModel):
    """A character encoder and two stacks of LSTM layers, one for each direction."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.character_encoder = ElmoCharacterEncoder(config)
        self.word_cache = WordCache()  # for inference
        sizes = range(config.num_hidden_layers)
        hidden = config.hidden_size
        self.forward_layers = nn.ModuleList(nn.LSTM(hidden, hidden, batch_first=True) for _ in sizes)
        self.backward_layers = nn.ModuleList(nn.LSTM(hidden, hidden, batch_first=True) for _ in sizes)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.post_init()

    def train(self, mode: bool = True) -> "ElmoModel":
        self.word_cache = WordCache()
        return super().train(mode)

    def get_input_embeddings(self) -> nn.Module:
        return self.character_encoder.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.character_encoder.embeddings = value

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_pieces: bool = True,
        recurrent_direction: str | None = None,
        state: torch.Tensor | None = None,
        **kwargs,
    ) -> ElmoOutput:
        """Encode a batch.

        Args:
            input_ids, attention_mask: (B, P), padded on the right.
            output_pieces: Whether to return `last_hidden_state`.
            recurrent_direction: forwards or backwards, the direction that starts with `state` and returns its state,
                for texts that are longer than a window.
            state: (B, 2 * layers, H), the state with which it ended in the previous windows; zero by default.
        """
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        word_index, word_mask, words = self._encode_words(input_ids, attention_mask.bool())
        word_states, state = self._encode_sentences(self.dropout(words), word_mask, recurrent_direction, state)
        output = ElmoOutput(
            last_hidden_state=gather_rows(word_states[-1], word_index) if output_pieces else None,
            hidden_states=tuple(gather_rows(s, word_index) for s in word_states) if output_hidden_states else None,
            word_states=tuple(word_states),
            word_index=word_index,
            word_mask=word_mask,
            state=state,
        )
        return output if return_dict is not False else output.to_tuple()

    def _encode_words(self, input_ids: torch.Tensor, mask: torch.Tensor):
        """The word of each piece, (B, P), the mask of words, (B, W), and their vectors, (B, W, H)."""
        starts, word_index, word_mask = find_words(input_ids >= self.config.first_continuation_id, mask)
        batch_size, width = word_mask.shape

        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        offsets = positions - torch.where(starts, positions, 0).cummax(dim=1).values  # of each piece in its word
        kept = mask & (offsets < self.config.max_word_length)
        longest = int(offsets[kept].max()) + 1
        rows = word_index + width * torch.arange(batch_size, device=input_ids.device).unsqueeze(1)
        spellings = input_ids.new_full((batch_size * width, longest), self.config.pad_token_id)
        spellings[rows[kept], offsets[kept]] = input_ids[kept]  # (B * W, L)

        # Each distinct word is encoded once. Words are identified by a 64-bit hash of their bytes, since sorting one
        # number per word is many times faster than sorting rows. The multipliers, one per position, are odd.
        multipliers = torch.full((longest,), HASH_MULTIPLIER, device=spellings.device).cumprod(dim=0)
        keys = (spellings * multipliers).sum(dim=1)
        distinct, inverse = torch.unique(keys, return_inverse=True)  # (D,), (B * W,)
        first = torch.full_like(distinct, len(keys))
        first.scatter_reduce_(0, inverse, torch.arange(len(keys), device=keys.device), reduce="amin")
        if self.training or torch.is_grad_enabled():
            vectors = self.character_encoder(spellings[first])  # (D, H)
        else:
            vectors = self.word_cache.look_up(distinct, spellings[first], self.character_encoder)
        return word_index, word_mask, F.embedding(inverse, vectors).view(batch_size, width, -1)

    def _encode_sentences(
        self,
        words: torch.Tensor,
        word_mask: torch.Tensor,
        recurrent_direction: str | None,
        state: torch.Tensor | None,
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Run both stacks over word vectors (B, W, H); returns the states (B, W, 2H) of each layer, and `state`."""
        word_states = [torch.cat([words, words], dim=-1)]
        lengths = word_mask.sum(dim=1, keepdim=True)  # (B, 1)
        positions = torch.arange(words.shape[1], device=words.device).expand(len(words), -1)
        # Each sentence is reversed within its own length. Padding stays at the end, where it influences no state of a
        # word, so that packed sequences are not needed.
        reversal = torch.where(positions < lengths, lengths - 1 - positions, positions)  # (B, W)
        forwards, backwards = words, gather_rows(words, reversal)
        initial_states = [None] * len(self.forward_layers) if state is None else _states_of_layers(state)
        final_states = []
        for forward_layer, backward_layer, initial in zip(
            self.forward_layers, self.backward_layers, initial_states, strict=True
        ):
            new_forwards, forward_final = forward_layer(
                forwards, initial if recurrent_direction == "forwards" else None
            )
            new_backwards, backward_final = backward_layer(
                backwards, initial if recurrent_direction == "backwards" else None
            )
            final_states += forward_final if recurrent_direction == "forwards" else backward_final
            is_first = len(word_states) == 1
            forwards = self.dropout(new_forwards) if is_first else forwards + self.dropout(new_forwards)
            backwards = self.dropout(new_backwards) if is_first else backwards + self.dropout(new_backwards)
            word_states.append(torch.cat([forwards, gather_rows(backwards, reversal)], dim=-1))
        if recurrent_direction is None:
            return word_states, None
        # The state after padding is useless: what follows a window that is not full starts from zero.
        return word_states, torch.cat(final_states).transpose(0, 1).detach() * word_mask[:, -1:, None]


class ElmoForPreTraining(ElmoPreTrainedModel):
    """Predicts the next word from the forward state and the previous word from the backward state."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.elmo = ElmoModel(config)
        self.output_embeddings = nn.Embedding(config.output_vocab_size, config.hidden_size)
        self.output_bias = nn.Embedding(config.output_vocab_size, 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "output_embeddings", None):
            init.normal_(module.weight, std=self.config.hidden_size**-0.5)
        elif module is getattr(self, "output_bias", None):
            init.zeros_(module.weight)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        negatives: torch.Tensor | None = None,
        negative_log_counts: torch.Tensor | None = None,
        recurrent_direction: str | None = None,
        state: torch.Tensor | None = None,
        **kwargs,
    ) -> ElmoForPreTrainingOutput:
        """Predict the words of a batch from both sides.

        Args:
            input_ids, attention_mask: (B, P), padded on the right.
            labels: (B, W), the output word of each word, -100 where none is predicted.
            negatives: (K,), output words of a sampled softmax; without them the softmax is over all output words.
            negative_log_counts: (V,), the log of the expected number of times that each word is among the negatives.
            recurrent_direction, state: As for `ElmoModel`.
        """
        outputs = self.elmo(
            input_ids, attention_mask, output_pieces=False, recurrent_direction=recurrent_direction, state=state
        )
        forwards, backwards = outputs.word_states[-1].chunk(2, dim=-1)  # (B, W, H)
        forwards, backwards = forwards[:, :-1], backwards[:, 1:]  # (B, W - 1, H)
        if labels is None:
            return ElmoForPreTrainingOutput(
                forward_logits=self._logits(forwards), backward_logits=self._logits(backwards)
            )
        targets = torch.cat([labels[:, 1:].reshape(-1), labels[:, :-1].reshape(-1)])
        states = torch.cat([forwards.reshape(-1, forwards.shape[-1]), backwards.reshape(-1, backwards.shape[-1])])
        is_predicted = targets != -100
        states, targets = states[is_predicted], targets[is_predicted]  # (N, H), (N,)
        if negatives is None:
            loss = self._exact_loss(states, targets)
        else:
            loss = self._sampled_loss(states, targets, negatives, negative_log_counts)
        return ElmoForPreTrainingOutput(loss=loss, state=outputs.state)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return F.linear(states, self.output_embeddings.weight, self.output_bias.weight.squeeze(-1))

    def _exact_loss(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        slices = zip(states.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True)
        return sum(F.cross_entropy(self._logits(s), t, reduction="sum") for s, t in slices) / len(targets)

    def _sampled_loss(self, states, targets, negatives, log_counts) -> torch.Tensor:
        words = torch.cat([targets, negatives])  # (N + K,)
        embeddings = self.output_embeddings(words)
        offsets = self.output_bias(words).squeeze(-1) - log_counts[words]
        num_targets = len(targets)
        target_logits = (states * embeddings[:num_targets]).sum(dim=-1) + offsets[:num_targets]  # (N,)
        places = negatives.new_full((self.config.output_vocab_size,), -1)
        places[negatives] = torch.arange(len(negatives), device=negatives.device)
        return SampledSoftmax.apply(
            states, target_logits, embeddings[num_targets:], offsets[num_targets:], places[targets]
        )


class ElmoForTokenClassification(TextClassifierMixin, ElmoPreTrainedModel):
    """A linear layer on the scalar mix of the layers; one row of logits per piece."""

    output_class = TokenClassifierOutput

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.elmo = ElmoModel(config)
        self.scalar_mix = ScalarMix(config.num_hidden_layers + 1)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    def logits(self, outputs: ElmoOutput) -> torch.Tensor:
        word_logits = self.classifier(self.dropout(self.scalar_mix(outputs.word_states)))  # (B, W, num_labels)
        return gather_rows(word_logits, outputs.word_index)


class ElmoForSequenceClassification(TextClassifierMixin, ElmoPreTrainedModel):
    """A linear layer on the mean and the maximum over words of the scalar mix of the layers."""

    output_class = SequenceClassifierOutput

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.elmo = ElmoModel(config)
        self.scalar_mix = ScalarMix(config.num_hidden_layers + 1)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(4 * config.hidden_size, config.num_labels)
        self.post_init()

    def logits(self, outputs: ElmoOutput) -> torch.Tensor:
        states = mean_and_maximum(self.scalar_mix(outputs.word_states), outputs.word_mask)  # (B, 4H)
        return self.classifier(self.dropout(states))


def _states_of_layers(state: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`state` (B, 2 * layers, H) -> hidden and cell state (1, B, H) of each layer."""
    parts = [part.contiguous() for part in state.transpose(0, 1).split(1)]
    return list(zip(parts[::2], parts[1::2], strict=True))
