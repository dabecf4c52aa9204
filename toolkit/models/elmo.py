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
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import ModelOutput

from .elmo_characters import ElmoCharacterEncoder, WordCache
from .heads import LayerMixMixin, TextClassifierMixin
from .language_model_head import LanguageModelHeadMixin
from .recurrent import initialize_recurrent
from .subwords import find_words, gather_rows, reversal

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
    """Output of the encoder; `last_hidden_state` and `hidden_states`, from the character encoder up: (B, P, 2H)."""

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
            initialize_recurrent(module)
        elif isinstance(module, ElmoCharacterEncoder):
            module.initialize()
        elif not isinstance(module, (nn.Conv1d, nn.Embedding)):
            super()._init_weights(module)


class ElmoModel(ElmoPreTrainedModel):
    """A character encoder and two stacks of LSTM layers, one for each direction."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.character_encoder = ElmoCharacterEncoder(config)
        self.word_cache = WordCache()  # for inference
        hidden, depth = config.hidden_size, config.num_hidden_layers
        self.forward_layers = nn.ModuleList(nn.LSTM(hidden, hidden, batch_first=True) for _ in range(depth))
        self.backward_layers = nn.ModuleList(nn.LSTM(hidden, hidden, batch_first=True) for _ in range(depth))
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
        """Encode `input_ids` (B, P), padded on the right.

        For texts that are longer than a window, one `recurrent_direction`, forwards or backwards, starts with `state`
        (B, 2 * layers, H), with which it ended in the previous windows, by default zero; its new state is returned.
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
        self, words: torch.Tensor, word_mask: torch.Tensor, recurrent_direction: str | None, state: torch.Tensor | None
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Run both stacks over word vectors (B, W, H); returns the states (B, W, 2H) of each layer, and `state`."""
        word_states = [torch.cat([words, words], dim=-1)]
        reversed_places = reversal(word_mask)
        states = {"forwards": words, "backwards": gather_rows(words, reversed_places)}
        initial_states = [None] * len(self.forward_layers)
        if state is not None:  # the hidden and the cell state (1, B, H) of each layer
            parts = [part.contiguous() for part in state.transpose(0, 1).split(1)]
            initial_states = list(zip(parts[::2], parts[1::2], strict=True))
        final_states = []
        for index, initial in enumerate(initial_states):
            for direction, layers in (("forwards", self.forward_layers), ("backwards", self.backward_layers)):
                is_recurrent = direction == recurrent_direction
                new_states, final = layers[index](states[direction], initial if is_recurrent else None)
                if is_recurrent:
                    final_states += final
                new_states = self.dropout(new_states)
                states[direction] = new_states if index == 0 else states[direction] + new_states
            word_states.append(
                torch.cat([states["forwards"], gather_rows(states["backwards"], reversed_places)], dim=-1)
            )
        if recurrent_direction is None:
            return word_states, None
        # The state after padding is useless: the window after one that is not full starts from zero.
        return word_states, torch.cat(final_states).transpose(0, 1).detach() * word_mask[:, -1:, None]


class ElmoForPreTraining(LanguageModelHeadMixin, ElmoPreTrainedModel):
    """Predicts the next word from the forward state and the previous word from the backward state."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.elmo = ElmoModel(config)
        self.add_output_layer(config.output_vocab_size, config.hidden_size)
        self.post_init()

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
        """Predict the words of a batch from both sides. Inputs are those of `ElmoModel`, and:

        Args:
            labels: (B, W), the output word of each word, -100 where none is predicted.
            negatives: (K,), output words of a sampled softmax; without them the softmax is over all output words.
            negative_log_counts: (V,), the log of the expected number of times that each word is among the negatives.
        """
        outputs = self.elmo(
            input_ids, attention_mask, output_pieces=False, recurrent_direction=recurrent_direction, state=state
        )
        forwards, backwards = outputs.word_states[-1].chunk(2, dim=-1)  # (B, W, H)
        # Backwards, the state of padding has read the whole text: it must not predict its last word.
        forwards, backwards = forwards[:, :-1], backwards[:, 1:] * outputs.word_mask[:, 1:, None]  # (B, W - 1, H)
        if labels is None:
            return ElmoForPreTrainingOutput(
                forward_logits=self.output_logits(forwards), backward_logits=self.output_logits(backwards)
            )
        targets = torch.cat([labels[:, 1:].flatten(), labels[:, :-1].flatten()])
        states = torch.cat([forwards.flatten(0, 1), backwards.flatten(0, 1)])
        loss = self.output_loss(states, targets, negatives, negative_log_counts)
        return ElmoForPreTrainingOutput(loss=loss, state=outputs.state)


class ElmoClassifierMixin(LayerMixMixin, TextClassifierMixin):
    encoder_class = ElmoModel

    def add_head(self, config: ElmoConfig) -> None:
        self.add_layer_mix(config.num_hidden_layers + 1, 2 * config.hidden_size)


class ElmoForTokenClassification(ElmoClassifierMixin, ElmoPreTrainedModel):
    """A linear layer on the scalar mix of the layers; one row of logits per piece."""

    output_class = TokenClassifierOutput

    def logits(self, outputs: ElmoOutput) -> torch.Tensor:
        return gather_rows(self.classify(outputs.word_states, outputs.word_mask), outputs.word_index)


class ElmoForSequenceClassification(ElmoClassifierMixin, ElmoPreTrainedModel):
    """A linear layer on the mean and the maximum over words of the scalar mix of the layers."""

    output_class = SequenceClassifierOutput
    pools_positions = True

    def logits(self, outputs: ElmoOutput) -> torch.Tensor:
        return self.classify(outputs.word_states, outputs.word_mask)
