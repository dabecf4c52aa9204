"""Recurrent networks as Hugging Face encoders: the simple recurrent network, the GRU and the LSTM.

A simple recurrent network computes `h_t = tanh(W_h h_{t-1} + W_i x_t + b)` (Elman 1990, "Finding structure in time",
https://doi.org/10.1207/s15516709cog1402_1). The gates of an LSTM (Hochreiter & Schmidhuber 1997,
https://doi.org/10.1162/neco.1997.9.8.1735) and of a GRU (Cho et al. 2014, https://arxiv.org/abs/1406.1078) let it keep
a state over many steps. With two directions, a second stack of layers reads the text backwards; neither stack sees the
states of the other, so that both can be trained as language models (Peters et al. 2018,
https://arxiv.org/abs/1802.05365).

The input is a sequence of tokens: words, pieces of words, or bytes. By default, all tokens of a word get the states
that the network has after the whole word: forwards that after its last token, backwards that after its first one. With
`of_words=False`, in pretraining and in sequence to sequence, each token has its own.

Shape legend: B batch, T tokens, H `hidden_size` of one direction, D directions, K negatives, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import ModelOutput

from .heads import LayerMixMixin, TextClassifierMixin
from .language_model_head import LanguageModelHeadMixin
from .recurrent import CELLS, initialize_embedding, initialize_recurrent
from .subwords import gather_rows, reversal


class RnnConfig(PreTrainedConfig):
    """Sizes of a recurrent network; `hidden_size` is the width of an embedding and of one direction."""

    model_type = "toolkit-rnn"

    vocab_size: int = 8192
    cell: str = "lstm"  # rnn, gru or lstm
    hidden_size: int = 256
    num_hidden_layers: int = 2
    num_directions: int = 2  # 1 reads forwards only
    hidden_dropout_prob: float = 0.1
    classifier_dropout: float = 0.3
    initializer_range: float = 0.02
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.cell not in CELLS:
            raise ValueError(f"cell {self.cell!r}: expected one of {', '.join(CELLS)}")
        if self.num_directions not in (1, 2):
            raise ValueError(f"num_directions {self.num_directions}: expected 1 or 2")


@dataclass
class RnnOutput(BaseModelOutput):
    """Output of the encoder; `last_hidden_state` and `hidden_states`, from the embeddings up: (B, T, D * H)."""

    layer_states: tuple[torch.Tensor, ...] | None = None  # `hidden_states`, for the heads
    mask: torch.Tensor | None = None  # (B, T), False for padding


@dataclass
class RnnForPreTrainingOutput(ModelOutput):
    """Output of the language model: `loss` with labels, logits without."""

    loss: torch.Tensor | None = None  # mean negative log-likelihood in nats per predicted token, of all directions
    forward_logits: torch.Tensor | None = None  # (B, T - 1, V), of tokens 2 to T
    backward_logits: torch.Tensor | None = None  # (B, T - 1, V), of tokens 1 to T - 1; None with one direction


class RnnPreTrainedModel(PreTrainedModel):
    config_class = RnnConfig
    base_model_prefix = "rnn"
    _input_embed_layer = "embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase):
            initialize_recurrent(module)
        elif isinstance(module, nn.Embedding):
            initialize_embedding(module)
        else:
            super()._init_weights(module)
            if isinstance(module, RnnModel):
                init.zeros_(module.continues)


class RnnModel(RnnPreTrainedModel):
    """Embeddings and one or two stacks of recurrent layers, one for each direction.

    The buffer `continues` (V,) says which entries of the vocabulary continue the word of the token before them.
    """

    continues: torch.Tensor

    def __init__(self, config: RnnConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.register_buffer("continues", torch.zeros(config.vocab_size, dtype=torch.bool))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.forward_layers = self._make_layers(config)
        self.backward_layers = self._make_layers(config) if config.num_directions == 2 else None
        self.post_init()

    def mark_words(self, continues) -> None:
        """Set which tokens continue a word: an array of bool, as long as the vocabulary of the tokenizer."""
        self.continues[: len(continues)] = torch.as_tensor(continues)

    def resize_token_embeddings(self, *arguments, **flags) -> nn.Embedding:
        """Like that of every model; new tokens start a word."""
        embeddings = super().resize_token_embeddings(*arguments, **flags)
        self.continues = F.pad(self.continues, (0, embeddings.num_embeddings - len(self.continues)))
        return embeddings

    @staticmethod
    def _make_layers(config: RnnConfig) -> nn.ModuleList:
        make: Any = CELLS[config.cell]
        sizes = config.hidden_size, config.hidden_size
        return nn.ModuleList(make(*sizes, batch_first=True) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        of_words: bool = True,
        **kwargs,
    ) -> RnnOutput:
        """Encode `input_ids` (B, T), padded on the right. Without `of_words` each token has its own states."""
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        mask = attention_mask.bool()
        vectors = self.dropout(self.embeddings(input_ids))
        directions = [self._run(self.forward_layers, vectors)]
        if self.backward_layers is not None:
            places = reversal(mask)
            backwards = self._run(self.backward_layers, gather_rows(vectors, places))
            directions.append([gather_rows(states, places) for states in backwards])
        if of_words:
            ends = self._ends_of_words(input_ids, mask)
            directions = [
                [gather_rows(states, end) for states in layers] for layers, end in zip(directions, ends, strict=False)
            ]
        layers = tuple(torch.cat(states, dim=-1) for states in zip(*directions, strict=True))
        output = RnnOutput(
            last_hidden_state=layers[-1],
            hidden_states=layers if output_hidden_states else None,
            layer_states=layers,
            mask=mask,
        )
        return output if return_dict is not False else output.to_tuple()

    def _run(self, layers: nn.ModuleList, states: torch.Tensor) -> list[torch.Tensor]:
        """The input and the states of each layer."""
        found = [states]
        for layer in layers:
            states = self.dropout(layer(states)[0])
            found.append(states)
        return found

    def _ends_of_words(self, input_ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last and the first token of the word of each token, each (B, T)."""
        starts = ~self.continues[input_ids] | ~mask
        starts[:, 0] = True
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        first = torch.where(starts, positions, 0).cummax(dim=1).values
        is_last = torch.ones_like(starts)
        is_last[:, :-1] = starts[:, 1:]
        last = torch.where(is_last, positions, input_ids.shape[1]).flip(1).cummin(dim=1).values.flip(1)
        return last, first


class RnnForPreTraining(LanguageModelHeadMixin, RnnPreTrainedModel):
    """Predicts the next token from the forward state and, with two directions, the previous from the backward one."""

    def __init__(self, config: RnnConfig):
        super().__init__(config)
        self.rnn = RnnModel(config)
        self.add_output_layer(config.vocab_size, config.hidden_size)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        negatives: torch.Tensor | None = None,
        negative_log_counts: torch.Tensor | None = None,
        **kwargs,
    ) -> RnnForPreTrainingOutput:
        """Predict the tokens of a batch. Inputs are those of `RnnModel`, and:

        Args:
            labels: (B, T), the token to predict at each place, -100 where none is predicted.
            negatives: (K,), tokens of a sampled softmax; without them the softmax is over the whole vocabulary.
            negative_log_counts: (V,), the log of the expected number of times that each token is among the negatives.
        """
        outputs = self.rnn(input_ids, attention_mask, of_words=False)
        states = list(outputs.last_hidden_state.split(self.config.hidden_size, dim=-1))  # (B, T, H) of each direction
        states[0] = states[0][:, :-1]
        if len(states) == 2:  # backwards, the state of padding has read the whole text: it must not predict its end
            states[1] = states[1][:, 1:] * outputs.mask[:, 1:, None]
        if labels is None:
            return RnnForPreTrainingOutput(None, *map(self.output_logits, states))
        targets = [labels[:, 1:], labels[:, :-1]][: len(states)]
        loss = self.output_loss(
            torch.cat([each.flatten(0, 1) for each in states]),
            torch.cat([each.flatten() for each in targets]),
            negatives,
            negative_log_counts,
        )
        return RnnForPreTrainingOutput(loss=loss)


class RnnClassifierMixin(LayerMixMixin, TextClassifierMixin):
    encoder_class = RnnModel

    def add_head(self, config: RnnConfig) -> None:
        self.add_layer_mix(config.num_hidden_layers + 1, config.num_directions * config.hidden_size)

    def logits(self, outputs: RnnOutput) -> torch.Tensor:
        return self.classify(outputs.layer_states, outputs.mask)


class RnnForTokenClassification(RnnClassifierMixin, RnnPreTrainedModel):
    """A linear layer on the scalar mix of the layers; one row of logits per token."""

    output_class = TokenClassifierOutput


class RnnForSequenceClassification(RnnClassifierMixin, RnnPreTrainedModel):
    """A linear layer on the mean and the maximum over tokens of the scalar mix of the layers."""

    output_class = SequenceClassifierOutput
    pools_positions = True
