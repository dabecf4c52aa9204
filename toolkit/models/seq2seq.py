"""Sequence to sequence: any encoder, and a recurrent or a Transformer decoder that reads its states by attention.

Without attention, a recurrent decoder knows of the source only its initial state, one vector (Sutskever, Vinyals & Le
2014, https://arxiv.org/abs/1409.3215). With attention it reads a weighted mean of all states of the encoder at each
step, with weights that are computed by a small network (additive: Bahdanau, Cho & Bengio 2015,
https://arxiv.org/abs/1409.0473) or by products (multiplicative: Luong, Pham & Manning 2015,
https://arxiv.org/abs/1508.04025). The output of the first layer of the decoder is the query; the context vector is an
input of the layers above it (after Wu et al. 2016, https://arxiv.org/abs/1609.08144) and of the output layer. In
training, each layer therefore computes all steps of the target in one call.

The Transformer decoder (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762) is a BERT of transformers with a causal
mask and attention to the encoder in each layer, as in Rothe, Narayan & Severyn (2020),
https://arxiv.org/abs/1907.12461.

Shape legend: B batch, S source tokens, T target tokens, H `hidden_size` of the decoder, D width of the states of the
encoder, V target vocabulary, L layers of the decoder.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, Seq2SeqLMOutput

from .elmo import ElmoModel
from .fasttext import FastTextModel
from .heads import encoder_from_config
from .recurrent import CELLS, initialize_embedding, initialize_recurrent
from .rnn import RnnForPreTraining, RnnModel
from .word2vec import Word2VecModel

# Classes that a copy of this file on a Hub builds without the Auto classes.
KNOWN_ENCODERS = (ElmoModel, FastTextModel, RnnModel, Word2VecModel)


class Seq2SeqConfig(PreTrainedConfig):
    """Sizes of a recurrent decoder; `encoder` is the configuration of the encoder, as a dictionary.

    With `transformer`, the configuration of a causal language model of transformers that attends to an encoder, the
    decoder is that model, and the fields about a recurrent one are ignored.
    """

    model_type = "toolkit-seq2seq"

    encoder: dict[str, Any] | None = None
    encoder_width: int = 512  # of a state of the encoder
    transformer: dict[str, Any] | None = None  # None: a recurrent decoder
    vocab_size: int = 100  # of the target
    cell: str = "lstm"  # rnn, gru or lstm
    hidden_size: int = 256
    num_hidden_layers: int = 2  # of the decoder
    attention: str = "additive"  # none, additive or multiplicative
    hidden_dropout_prob: float = 0.3
    label_smoothing: float = 0.0  # while training
    source_by_character: bool = False  # whether the tokenizer gets each character of a source as a word
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    decoder_start_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.cell not in CELLS:
            raise ValueError(f"cell {self.cell!r}: expected one of {', '.join(CELLS)}")
        if self.attention not in ("none", *ATTENTIONS):
            raise ValueError(f"attention {self.attention!r}: expected one of none, {', '.join(ATTENTIONS)}")


class AdditiveAttention(nn.Module):
    """Scores v · tanh(W s + U h) of a state s of the decoder and a state h of the encoder."""

    def __init__(self, hidden_size: int, encoder_width: int):
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(encoder_width, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """`queries` (B, T, H), `memory` (B, S, D) -> scores (B, T, S)."""
        sums = self.query(queries).unsqueeze(2) + self.key(memory).unsqueeze(1)  # (B, T, S, H)
        return self.score(sums.tanh()).squeeze(-1)


class MultiplicativeAttention(nn.Module):
    """Scores s · W h of a state s of the decoder and a state h of the encoder."""

    def __init__(self, hidden_size: int, encoder_width: int):
        super().__init__()
        self.key = nn.Linear(encoder_width, hidden_size, bias=False)

    def forward(self, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """`queries` (B, T, H), `memory` (B, S, D) -> scores (B, T, S)."""
        return queries @ self.key(memory).transpose(1, 2)


ATTENTIONS: dict[str, type[nn.Module]] = {"additive": AdditiveAttention, "multiplicative": MultiplicativeAttention}


class RecurrentCache:
    """The states of the layers of the decoder after the tokens that it has read, for `generate`."""

    is_croppable = False  # `generate` asks on Apple's processors

    def __init__(self, states: list[torch.Tensor]):
        self.states = states  # one (n, B, H) per layer; n is 2 for an LSTM, with its cell state, else 1

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.states = [state.index_select(1, beam_idx.to(state.device)) for state in self.states]


@dataclass
class Seq2SeqEncoderOutput(BaseModelOutputWithPooling):
    """States of the encoder, and which of them are padding: `generate` gives the mask to the encoder alone."""

    mask: torch.Tensor | None = None  # (B, S), zero for padding


class DecoderOutput(NamedTuple):
    """What a decoder returns."""

    logits: torch.Tensor  # (B, T, V)
    attentions: tuple[torch.Tensor, ...] | None  # weights of each layer that attends to the source: (B, heads, T, S)
    cache: Any  # for the tokens that follow


class Seq2SeqEncoder(nn.Module):
    """The encoder: `last_hidden_state` (B, S, D), and as `pooler_output` (B, D) what the decoder is initialized from.

    That vector is the final state of each direction of a recurrent network, else the mean over the source.
    """

    def __init__(self, config: Seq2SeqConfig):
        super().__init__()
        self.set_model(encoder_from_config(config.encoder, KNOWN_ENCODERS))

    def set_model(self, model: PreTrainedModel) -> None:
        """Use this encoder, without the pooler of a BERT: distributed training waits for gradients of all parameters,
        and the pooler gets none."""
        model.pooler = None
        self.model, self.main_input_name = model, model.main_input_name

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> Seq2SeqEncoderOutput:
        if attention_mask is None:
            attention_mask = input_ids != self.model.config.pad_token_id
        if isinstance(self.model, RnnModel):
            states = self.model(input_ids, attention_mask, of_words=False).last_hidden_state
            forwards, backwards = states.tensor_split([self.model.config.hidden_size], dim=-1)
            last = attention_mask.sum(dim=1) - 1
            pooled = torch.cat([forwards[torch.arange(len(states)), last], backwards[:, 0]], dim=-1)
        else:
            states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            inside = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * inside).sum(dim=1) / inside.sum(dim=1)
        return Seq2SeqEncoderOutput(last_hidden_state=states, pooler_output=pooled, mask=attention_mask)


class RecurrentDecoder(nn.Module):
    """Embeddings, recurrent layers with attention above the first one, and the output layer."""

    def __init__(self, config: Seq2SeqConfig):
        super().__init__()
        hidden, depth = config.hidden_size, config.num_hidden_layers
        context = 0 if config.attention == "none" else config.encoder_width
        make: Any = CELLS[config.cell]
        widths = [hidden] + [hidden + context] * (depth - 1)
        self.states_per_layer = 2 if config.cell == "lstm" else 1
        self.embeddings = nn.Embedding(config.vocab_size, hidden, padding_idx=config.pad_token_id)
        self.bridge = nn.Linear(config.encoder_width, depth * self.states_per_layer * hidden)
        self.layers = nn.ModuleList(make(width, hidden, batch_first=True) for width in widths)
        self.attention = ATTENTIONS[config.attention](hidden, config.encoder_width) if context else None
        self.combine = nn.Linear(hidden + context, hidden) if context else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.output = nn.Linear(hidden, config.vocab_size)

    @torch.no_grad()
    def load_pretrained(self, model: RnnForPreTraining) -> None:
        """Copy the forward direction of a language model of the same sizes. With attention, the weights of
        the context vector start at zero, so that the source has no effect through it yet; logits are those of the
        language model, but computed from `tanh` of its states, so that probabilities are flatter."""
        self.embeddings.weight.copy_(model.rnn.embeddings.weight)
        for layer, pretrained in zip(self.layers, model.rnn.forward_layers, strict=True):
            for name, parameter in layer.named_parameters():
                found = getattr(pretrained, name)
                parameter.copy_(F.pad(found, (0, parameter.shape[-1] - found.shape[-1])))
        if self.combine is not None:
            hidden = self.combine.out_features
            self.combine.weight.zero_()
            self.combine.weight[:, :hidden] = torch.eye(hidden)
        self.output.weight.copy_(model.output_embeddings.weight)
        self.output.bias.copy_(model.output_bias.weight.squeeze(-1))

    def start(self, pooled: torch.Tensor) -> RecurrentCache:
        """The initial states, from the vector of the source (B, D)."""
        states = self.bridge(pooled).tanh().unflatten(1, (len(self.layers), self.states_per_layer, -1))
        return RecurrentCache([states[:, i].transpose(0, 1).contiguous() for i in range(len(self.layers))])

    def forward(
        self, input_ids: torch.Tensor, source: Seq2SeqEncoderOutput, cache: RecurrentCache | None = None, **kwargs
    ) -> DecoderOutput:
        """Read `input_ids` (B, T) from the states in `cache`, or else from the start, with attention to `source`."""
        memory = source.last_hidden_state
        cache = cache or self.start(source.pooler_output)
        states, weights, context, reached = self.dropout(self.embeddings(input_ids)), None, None, []
        for index, (layer, initial) in enumerate(zip(self.layers, cache.states, strict=True)):
            if index > 0:
                states = self.dropout(states if context is None else torch.cat([states, context], dim=-1))
            parts = initial.split(1)
            states, final = layer(states, parts if len(parts) == 2 else parts[0])
            reached.append(torch.cat(final) if len(parts) == 2 else final)
            if index == 0 and self.attention is not None:
                scores = self.attention(states, memory).masked_fill(~source.mask.bool().unsqueeze(1), float("-inf"))
                weights = scores.softmax(dim=-1)
                context = weights @ memory  # (B, T, D)
        if context is not None:
            states = self.combine(torch.cat([states, context], dim=-1)).tanh()
        attentions = None if weights is None else (weights.unsqueeze(1),)
        return DecoderOutput(self.output(self.dropout(states)), attentions, RecurrentCache(reached))


class TransformerDecoder(nn.Module):
    """A causal language model of transformers with attention to the encoder, whose states are projected if needed."""

    def __init__(self, config: Seq2SeqConfig):
        super().__init__()
        # transformers 5.24 ties weights of direct children only (modeling_utils.py, line 1316).
        inside = transformers.AutoConfig.for_model(**{**(config.transformer or {}), "tie_word_embeddings": False})
        self.model = transformers.AutoModelForCausalLM.from_config(inside, trust_remote_code=False)
        hidden = inside.hidden_size
        is_as_wide = config.encoder_width == hidden
        self.projection = nn.Identity() if is_as_wide else nn.Linear(config.encoder_width, hidden)

    def load_pretrained(self, model: PreTrainedModel) -> None:
        """Copy a causal language model of the same configuration."""
        self.model.load_state_dict(model.state_dict())

    def forward(self, input_ids: torch.Tensor, source: Seq2SeqEncoderOutput, cache: Any = None, **kwargs):
        """Read `input_ids` (B, T) after the tokens in `cache`, with attention to `source`."""
        output = self.model(
            input_ids=input_ids,
            encoder_hidden_states=self.projection(source.last_hidden_state),
            encoder_attention_mask=source.mask,
            cache=cache,
            **kwargs,
        )
        return DecoderOutput(output.logits, output.cross_attentions, output.cache)


class Seq2SeqForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """An encoder and a decoder, with transformers' `generate`."""

    config_class = Seq2SeqConfig
    base_model_prefix = "encoder"  # the decoder is the head on it

    def __init__(self, config: Seq2SeqConfig):
        super().__init__(config)
        self.encoder = Seq2SeqEncoder(config)
        self.decoder = RecurrentDecoder(config) if config.transformer is None else TransformerDecoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase):
            initialize_recurrent(module)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            initialize_embedding(module)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `forward` makes a cache of its own

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        encoder_outputs: Seq2SeqEncoderOutput | None = None,
        cache: RecurrentCache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """Predict each token of the target from those before it (teacher forcing).

        Args:
            input_ids: (B, S), the source, padded on the right; `attention_mask` (B, S) is zero for padding.
            decoder_input_ids: (B, T), by default the start token, and the `labels` without the last one.
            labels: (B, T), the target and the token that ends it, -100 for padding.
            encoder_outputs: Of the encoder, in place of `input_ids`.
            cache: States of the decoder after earlier tokens of the target.

        Returns:
            `logits` (B, T, V); with `labels` also `loss`, the mean cross-entropy in nats per token of the target,
            smoothed while training; with `output_attentions` also `cross_attentions`, (B, heads, T, S) for each layer
            that attends to the source.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        if decoder_input_ids is None:
            before = encoder_outputs.mask.new_empty(len(encoder_outputs.mask), 0) if labels is None else labels[:, :-1]
            decoder_input_ids = F.pad(before, (1, 0), value=self.config.decoder_start_token_id)
            decoder_input_ids = decoder_input_ids.masked_fill(decoder_input_ids == -100, self.config.pad_token_id)
        flags = {"use_cache": bool(use_cache), "output_attentions": bool(output_attentions)}
        decoded = self.decoder(decoder_input_ids, encoder_outputs, cache, **flags)
        loss = None
        if labels is not None:
            smoothing = self.config.label_smoothing if self.training else 0.0
            loss = F.cross_entropy(decoded.logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=decoded.logits,
            cache=decoded.cache if use_cache else None,
            cross_attentions=decoded.attentions if output_attentions else None,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
        )
        return output if return_dict is not False else output.to_tuple()

    @property
    def longest_target(self) -> int | None:
        """The largest number of tokens of a target, end token included; None without a limit."""
        return (self.config.transformer or {}).get("max_position_embeddings")

    @torch.no_grad()
    def log_probabilities(self, inputs: dict[str, torch.Tensor], sequences: torch.Tensor) -> torch.Tensor:
        """The log-probabilities of `sequences` (B * n, T) as `generate` returns them, n for each source: (B * n,).

        `inputs` are `input_ids` and `attention_mask`, each (B, S).
        """
        source, found = self.encoder(**inputs), []
        of_sources = sequences.unflatten(0, (len(source.last_hidden_state), -1))  # (B, n, T)
        for candidates in of_sources.unbind(dim=1):  # one for each source at a time, to save memory
            logits, targets = self.decoder(candidates[:, :-1], source).logits, candidates[:, 1:]
            of_tokens = -F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # (B, T - 1)
            ends = (targets == self.config.eos_token_id).long()
            is_after_end = ends.cumsum(dim=1) - ends > 0
            found.append(of_tokens.masked_fill(is_after_end, 0.0).sum(dim=1))
        return torch.stack(found, dim=1).flatten()
