"""ELMo: a two-way LSTM language model over words spelled in bytes.

Peters, Neumann, Iyyer, Gardner, Clark, Lee & Zettlemoyer (2018), "Deep contextualized word representations",
https://arxiv.org/abs/1802.05365. The character encoder is that of Kim, Jernite, Sontag & Rush (2016),
https://arxiv.org/abs/1508.06615; highway layers are of Srivastava, Greff & Schmidhuber (2015),
https://arxiv.org/abs/1505.00387; the sampled softmax is of Jean, Cho, Memisevic & Bengio (2015),
https://arxiv.org/abs/1412.2007.

The input is a sequence of *pieces*, one a byte, as `toolkit tokenizer --kind bytes` makes them. A piece whose id is at
least `config.first_continuation_id` continues the word before it. The model gathers the pieces into words, runs the
language model over words, and hands every piece the state of its word: logits and offsets stay one row a piece.

Shape legend: B batch, P pieces, W words, D distinct words of the batch, L bytes of a word, H `hidden_size` of one
direction, V output words.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import ModelOutput

from .heads import ScalarMix, classification_output, mean_and_maximum
from .pieces import find_words, gather_rows


class ElmoConfig(PreTrainedConfig):
    """Sizes of an ELMo; `hidden_size` is the width of one direction, the encoder's output is twice as wide."""

    model_type = "toolkit-elmo"

    vocab_size: int = 517  # pieces: 5 special, 256 bytes that start a word, 256 that continue one
    first_continuation_id: int = 261
    output_vocab_size: int = 30000  # words that the language model predicts, the most frequent first
    char_embedding_size: int = 16
    char_filters: list[list[int]] | None = None  # [width in bytes, number of filters]
    max_word_length: int = 40  # bytes of a word that are read; the rest is cut
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
    """`last_hidden_state` (B, P, 2H): the top layer, one row a piece, None if not asked for. `word_states`: for each
    layer, the characters' included, (B, W, 2H). `word_index` (B, P): the word that each piece belongs to. `word_mask`
    (B, W): real words. `state` (B, 2 * layers, H): hidden and cell states after the last word, of the direction that
    reads on."""

    word_states: tuple[torch.Tensor, ...] | None = None
    word_index: torch.Tensor | None = None
    word_mask: torch.Tensor | None = None
    state: torch.Tensor | None = None


@dataclass
class ElmoForPreTrainingOutput(ModelOutput):
    """`loss`: mean negative log-likelihood of both directions, in nats a predicted word. The logits are of the full
    softmax and given in evaluation only: (B, W - 1, V), of words 2 to W forwards and of words 1 to W - 1 backwards.
    `state` is the encoder's, for the windows that follow."""

    loss: torch.Tensor | None = None
    forward_logits: torch.Tensor | None = None
    backward_logits: torch.Tensor | None = None
    state: torch.Tensor | None = None


class ElmoCharacterEncoder(nn.Module):
    """The vector of a word from its bytes: convolutions of several widths, the maximum over positions, highway, H."""

    def __init__(self, config: ElmoConfig):
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.embeddings = nn.Embedding(config.vocab_size, config.char_embedding_size)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.char_embedding_size, filters, width) for width, filters in config.char_filters
        )
        num_filters = sum(filters for _, filters in config.char_filters)
        self.highways = nn.ModuleList(
            nn.Linear(num_filters, 2 * num_filters) for _ in range(config.num_highway_layers)
        )
        self.projection = nn.Linear(num_filters, config.hidden_size)

    def forward(self, spellings: torch.Tensor) -> torch.Tensor:
        """`spellings` (D, L): piece ids, padded on the right with `pad_token_id`. Returns (D, H)."""
        inside = spellings != self.pad_token_id
        lengths = inside.sum(dim=1)
        by_length = lengths.argsort()
        # One product for all convolutions and bytes; a window may run over the end of its word, which padding marks.
        widest = max(convolution.kernel_size[0] for convolution in self.convolutions)
        padded = F.pad(spellings[by_length], (0, widest - 1), value=self.pad_token_id)
        size = self.embeddings.embedding_dim
        windows = self.embeddings(padded).flatten(1).unfold(1, widest * size, size)  # (D, L, widest * size)
        features = F.linear(windows[inside[by_length]], *self._joint_convolution(widest))  # (bytes, filters)
        # The maximum over each word's bytes, words of one length at a time; those of none, which are padding, get 0.
        counts = lengths.bincount().tolist()
        parts = features.split([length * count for length, count in enumerate(counts)])
        pooled = [part.unflatten(0, (-1, length)).amax(dim=1) for length, part in enumerate(parts) if len(part)]
        states = F.relu(torch.cat([features.new_zeros(counts[0], features.shape[1]), *pooled]))[by_length.argsort()]
        for highway in self.highways:
            transform, gate = highway(states).chunk(2, dim=-1)
            gate = torch.sigmoid(gate)
            states = gate * states + (1 - gate) * F.relu(transform)
        return self.projection(states)

    def _joint_convolution(self, widest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (filters, widest * char_embedding_size) and bias (filters,) of all convolutions as one."""
        weights = [F.pad(layer.weight, (0, widest - layer.kernel_size[0])) for layer in self.convolutions]
        weight = torch.cat(weights).transpose(1, 2).flatten(1)  # from (filters, char_embedding_size, widest)
        return weight, torch.cat([layer.bias for layer in self.convolutions])


class WordCache:
    """The vectors of the words that a character encoder has read, for as long as its weights stay as they are."""

    MAX_WORDS = 200_000  # then it starts anew; at width 256 these are 200 MB

    def __init__(self):
        self.made_with: tuple = ()
        self.keys = self.vectors = torch.empty(0)

    def look_up(self, keys: torch.Tensor, spellings: torch.Tensor, encoder: ElmoCharacterEncoder) -> torch.Tensor:
        """`keys` (D,), in order, tell the words apart that `spellings` (D, L) spell. Returns (D, H)."""
        kind = spellings.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        made_with = precision, *((weight.data_ptr(), weight._version) for weight in encoder.parameters())
        if made_with != self.made_with or len(self.keys) > self.MAX_WORDS:
            self.made_with, self.keys, self.vectors = made_with, keys, encoder(spellings)
        missing = ~torch.isin(keys, self.keys)
        if missing.any():
            all_keys = torch.cat([self.keys, keys[missing]])
            all_vectors = torch.cat([self.vectors, encoder(spellings[missing])])
            self.keys, order = all_keys.sort()
            self.vectors = all_vectors[order]
        return self.vectors[torch.searchsorted(self.keys, keys)]


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
            init.normal_(module.embeddings.weight, std=0.5)
            for layer in [*module.convolutions, *module.highways, module.projection]:
                init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                init.zeros_(layer.bias)
            for highway in module.highways:  # a highway starts by carrying its input through (gate 0.88)
                init.constant_(highway.bias[highway.bias.shape[0] // 2 :], 2.0)
        elif isinstance(module, ScalarMix):
            init.zeros_(module.weights)
            init.ones_(module.scale)
        elif not isinstance(module, (nn.Conv1d, nn.Embedding)):
            super()._init_weights(module)


class ElmoModel(ElmoPreTrainedModel):
    """Character encoder and two stacks of LSTM layers, one that reads forwards and one that reads backwards."""

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
        reads_on: str | None = None,
        state: torch.Tensor | None = None,
        **kwargs,
    ) -> ElmoOutput:
        """`input_ids` and `attention_mask` (B, P), padded on the right. `hidden_states` has one (B, P, 2H) a layer,
        the characters' first; without `output_pieces` there is no `last_hidden_state`. `reads_on`, "forwards" or
        "backwards", is the direction that begins with the `state` that it ended with in the windows before, and gives
        its own for the next."""
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        word_index, word_mask, words = self._encode_words(input_ids, attention_mask.bool())
        words = self.dropout(words)
        word_states = [torch.cat([words, words], dim=-1)]

        lengths = word_mask.sum(dim=1, keepdim=True)  # (B, 1)
        positions = torch.arange(words.shape[1], device=words.device).expand(len(words), -1)
        # Reversing each sentence within its own length keeps the padding at the end, where no state can be touched
        # by it: no packing is needed.
        reversal = torch.where(positions < lengths, lengths - 1 - positions, positions)  # (B, W)
        forwards, backwards = words, gather_rows(words, reversal)
        begins = [None] * len(self.forward_layers) if state is None else _layers_of_state(state)
        ends = []
        for forward_layer, backward_layer, begin in zip(
            self.forward_layers, self.backward_layers, begins, strict=True
        ):
            new_forwards, forward_end = forward_layer(forwards, begin if reads_on == "forwards" else None)
            new_backwards, backward_end = backward_layer(backwards, begin if reads_on == "backwards" else None)
            ends += forward_end if reads_on == "forwards" else backward_end
            is_first = len(word_states) == 1
            forwards = self.dropout(new_forwards) if is_first else forwards + self.dropout(new_forwards)
            backwards = self.dropout(new_backwards) if is_first else backwards + self.dropout(new_backwards)
            word_states.append(torch.cat([forwards, gather_rows(backwards, reversal)], dim=-1))

        output = ElmoOutput(
            last_hidden_state=gather_rows(word_states[-1], word_index) if output_pieces else None,
            hidden_states=tuple(gather_rows(s, word_index) for s in word_states) if output_hidden_states else None,
            word_states=tuple(word_states),
            word_index=word_index,
            word_mask=word_mask,
            # After padding a state is of no use: what follows a window that is not full begins anew.
            state=None if reads_on is None else torch.cat(ends).transpose(0, 1).detach() * word_mask[:, -1:, None],
        )
        return output if return_dict is not False else output.to_tuple()

    def _encode_words(self, input_ids: torch.Tensor, mask: torch.Tensor):
        """Returns the word of each piece (B, P), which words are real (B, W) and their vectors (B, W, H)."""
        starts, word_index, word_mask = find_words(input_ids >= self.config.first_continuation_id, mask)
        batch_size, width = word_mask.shape

        # Where in its word each piece stands: its position less that of the word's first piece.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        offsets = positions - torch.where(starts, positions, 0).cummax(dim=1).values
        kept = mask & (offsets < self.config.max_word_length)
        longest = int(offsets[kept].max()) + 1
        rows = word_index + width * torch.arange(batch_size, device=input_ids.device).unsqueeze(1)
        spellings = input_ids.new_full((batch_size * width, longest), self.config.pad_token_id)
        spellings[rows[kept], offsets[kept]] = input_ids[kept]  # (B * W, L)

        # A word is spelled once however often it occurs. Words are told apart by a 64-bit hash of their bytes
        # (sorting one number a word is many times faster than sorting rows).
        keys = (spellings * _hash_multipliers(longest, spellings.device)).sum(dim=1)
        distinct, inverse = torch.unique(keys, return_inverse=True)  # (D,), (B * W,)
        first = torch.full_like(distinct, len(keys))
        first.scatter_reduce_(0, inverse, torch.arange(len(keys), device=keys.device), reduce="amin")
        if self.training or torch.is_grad_enabled():
            vectors = self.character_encoder(spellings[first])  # (D, H)
        else:
            vectors = self.word_cache.look_up(distinct, spellings[first], self.character_encoder)
        return word_index, word_mask, F.embedding(inverse, vectors).view(batch_size, width, -1)


class ElmoForPreTraining(ElmoPreTrainedModel):
    """Predicts the next word from the forward state and the previous one from the backward state, with one softmax."""

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
        reads_on: str | None = None,
        state: torch.Tensor | None = None,
        **kwargs,
    ) -> ElmoForPreTrainingOutput:
        """`labels` (B, W): the output word of each word of the input, -100 where none is predicted. `negatives` (K,)
        are output words to compare with and `negative_log_counts` (V,) the log of how often each word is expected
        among them: with both the loss is the sampled softmax's, without them the exact one. `reads_on` and `state`
        are the encoder's."""
        outputs = self.elmo(input_ids, attention_mask, output_pieces=False, reads_on=reads_on, state=state)
        forwards, backwards = outputs.word_states[-1].chunk(2, dim=-1)  # (B, W, H)
        forwards, backwards = forwards[:, :-1], backwards[:, 1:]  # (B, W - 1, H)
        if labels is None:
            return ElmoForPreTrainingOutput(
                forward_logits=self._logits(forwards), backward_logits=self._logits(backwards)
            )
        targets = torch.cat([labels[:, 1:].reshape(-1), labels[:, :-1].reshape(-1)])
        states = torch.cat([forwards.reshape(-1, forwards.shape[-1]), backwards.reshape(-1, backwards.shape[-1])])
        predicted = targets != -100
        states, targets = states[predicted], targets[predicted]  # (N, H), (N,)
        if negatives is None:
            loss = self._exact_loss(states, targets)
        else:
            loss = self._sampled_loss(states, targets, negatives, negative_log_counts)
        return ElmoForPreTrainingOutput(loss=loss, state=outputs.state)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return F.linear(states, self.output_embeddings.weight, self.output_bias.weight.squeeze(-1))

    def _exact_loss(self, states: torch.Tensor, targets: torch.Tensor, rows: int = 1024) -> torch.Tensor:
        """In slices, since all logits at once, (N, V), would not fit small machines."""
        slices = zip(states.split(rows), targets.split(rows), strict=True)
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


class SampledSoftmax(torch.autograd.Function):
    """Mean negative log-likelihood of N targets among K negatives each, with its gradients, in slices of N: a slice of
    the logits is used up before it leaves the processor's cache, and (N, K) numbers are never held."""

    ROWS = 256

    @staticmethod
    def forward(ctx, states, target_logits, embeddings, offsets, places):
        """`states` (N, H); `target_logits` (N,); `embeddings` (K, H) and `offsets` (K,) of the negatives;
        `places` (N,) of the targets among them, -1 where a target is none of them."""
        loss = target_logits.new_zeros(())
        state_gradients, target_gradients = [], []
        embedding_gradient, offset_gradient = torch.zeros_like(embeddings), torch.zeros_like(offsets)
        slices = (x.split(SampledSoftmax.ROWS) for x in (states, target_logits, places))
        for some_states, some_targets, some_places in zip(*slices, strict=True):
            # Only the products may be of low precision: bfloat16 would round the offsets and the sum over the words.
            logits = (some_states @ embeddings.T).to(offsets.dtype).add_(offsets)  # (rows, K)
            rows = (some_places >= 0).nonzero().squeeze(-1)
            logits[rows, some_places[rows]] = float("-inf")
            totals = torch.logaddexp(logits.logsumexp(dim=-1), some_targets)
            loss += (totals - some_targets).sum()
            shares = logits.sub_(totals.unsqueeze(-1)).exp_()
            offset_gradient += shares.sum(dim=0)
            shares = shares.to(some_states.dtype)
            state_gradients.append(shares @ embeddings)
            target_gradients.append((some_targets - totals).exp() - 1)
            embedding_gradient += shares.T @ some_states
        ctx.save_for_backward(
            torch.cat(state_gradients).to(states.dtype),
            torch.cat(target_gradients),
            embedding_gradient,
            offset_gradient,
        )
        return loss / len(states)

    @staticmethod
    def backward(ctx, gradient):
        gradients = ctx.saved_tensors
        gradient = gradient / len(gradients[0])
        return *(gradient.to(each.dtype) * each for each in gradients), None


class ElmoForTokenClassification(ElmoPreTrainedModel):
    """A linear layer on the scalar mix of the layers; one row of logits a piece."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.elmo = ElmoModel(config)
        self.scalar_mix = ScalarMix(config.num_hidden_layers + 1)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """`labels` (B, P), -100 where a piece has none; logits (B, P, num_labels)."""
        outputs = self.elmo(input_ids, attention_mask, output_hidden_states, output_pieces=False)
        word_logits = self.classifier(self.dropout(self.scalar_mix(outputs.word_states)))  # (B, W, num_labels)
        logits = gather_rows(word_logits, outputs.word_index)
        return classification_output(TokenClassifierOutput, logits, labels, outputs.hidden_states, return_dict)


class ElmoForSequenceClassification(ElmoPreTrainedModel):
    """A linear layer on the mean and the maximum over words of the scalar mix of the layers."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.elmo = ElmoModel(config)
        self.scalar_mix = ScalarMix(config.num_hidden_layers + 1)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(4 * config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """`labels` (B,); logits (B, num_labels)."""
        outputs = self.elmo(input_ids, attention_mask, output_hidden_states, output_pieces=False)
        states = mean_and_maximum(self.scalar_mix(outputs.word_states), outputs.word_mask)  # (B, 4H)
        logits = self.classifier(self.dropout(states))  # (B, num_labels)
        return classification_output(SequenceClassifierOutput, logits, labels, outputs.hidden_states, return_dict)


def _layers_of_state(state: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`state` (B, 2 * layers, H) -> hidden and cell state (1, B, H) of each layer."""
    parts = [part.contiguous() for part in state.transpose(0, 1).split(1)]
    return list(zip(parts[::2], parts[1::2], strict=True))


def _hash_multipliers(length: int, device: torch.device) -> torch.Tensor:
    """Odd 64-bit numbers, one a position: powers of a fixed multiplier (Knuth's, of his MMIX generator)."""
    return torch.full((length,), 6364136223846793005, device=device).cumprod(dim=0)
