"""What BERT and ELECTRA have in common: a last layer that computes masked positions only, and initial weights.

Both extend transformers' own classes, whose weights, configurations and checkpoints stay as they are.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

GOLDEN_RATIO = (5**0.5 - 1) / 2
INITIAL_SCORE = 12.0  # by how much a head's attention score for its initial position exceeds that for distant ones


class MaskedLastLayer:
    """Extends a transformer layer, to compute queries and feed-forward for some positions only."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *args,
        selected: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """Compute the new states (batch, time, H) of all positions, or those (selected, H), in reading order, of the
        positions in `selected` (batch, time), which attend to all."""
        if selected is None:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        # Every row gets the same number of positions; the surplus ones are dropped after attention.
        counts = selected.sum(dim=1)  # (batch,)
        positions = selected.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max()), None]
        selected = torch.arange(positions.shape[1], device=counts.device) < counts[:, None]  # (batch, most)
        if attention_mask is not None:
            attention_mask = attention_mask.take_along_dim(positions[:, None], dim=2)
        states = hidden_states.take_along_dim(positions, dim=1)  # (batch, most, H)
        attention = self.attention.self
        projections = attention.query(states), attention.key(hidden_states), attention.value(hidden_states)
        heads = [each.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2) for each in projections]
        # The name of the implementation is private in transformers 5.24, but attention functions are found by it alone
        # (models/bert/modeling_bert.py, line 190).
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
        dropout = attention.dropout.p if self.training else 0.0
        kwargs.pop("cache", None)  # None in an encoder
        attended, _ = attend(attention, *heads, attention_mask, dropout=dropout, scaling=attention.scaling, **kwargs)
        return self.feed_forward_chunk(self.attention.output(attended.flatten(2)[selected], states[selected]))


def replace_last_layer(layers: nn.ModuleList, layer_class: type[nn.Module], config: PreTrainedConfig) -> None:
    """Replace the last of `layers` by a `layer_class` with the same parameters, which are shared and not copied."""
    with torch.device("meta"):  # no memory, and no random numbers, for weights that are replaced
        last = layer_class(config, layer_idx=len(layers) - 1)
    last.load_state_dict(layers[-1].state_dict(keep_vars=True), assign=True)
    layers[-1] = last


class MaskedLanguageModelMixin:
    """Initial weights and packed inputs of a model that predicts masked tokens."""

    output_bias: nn.Parameter  # (vocab_size,), of the predictions
    stacks: list[tuple[nn.Linear | None, nn.ModuleList]]  # layers on the embeddings, and a projection below them

    def set_dropout(self, probability: float) -> None:
        """Set the dropout of all modules; the configuration, which fine-tuning starts from, does not change."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability

    @torch.no_grad()
    def set_output_bias(self, counts: torch.Tensor) -> None:
        """Set the output bias to the log frequencies of the tokens, by `counts` (vocab_size,) plus one."""
        self.output_bias.copy_(((counts + 1) / (counts + 1).sum()).log())

    @torch.no_grad()
    def set_word_embeddings(self, ids: torch.Tensor, vectors: torch.Tensor) -> None:
        """Set the embeddings of the tokens `ids` (n,) to `vectors` (n, width), centred and scaled as random ones."""
        vectors = vectors - vectors.mean(dim=0)
        self.get_input_embeddings().weight[ids] = vectors * (self.config.initializer_range / vectors.std(correction=0))

    @torch.no_grad()
    def attend_to_neighbours(self) -> None:
        """Initialize each head of each layer to attend to one relative position: -1, 1, -2, 2, and so on.

        Position embeddings become sines and cosines along random directions of the space. From these directions, keys
        read their position, and queries the position that their head attends to. All weights remain trainable. Without
        this, a small encoder predicts by frequency for thousands of steps, until its heads find their neighbours.

        Fixed heads of this kind are due to Raganato, Scherrer & Tiedemann (2020), "Fixed encoder self-attention
        patterns in transformer-based machine translation", https://arxiv.org/abs/2002.10260; initializing attention to
        what training arrives at, to Trockman & Kolter (2023), "Mimetic initialization of self-attention layers",
        https://arxiv.org/abs/2305.09828.
        """
        positions = self.base_model.embeddings.position_embeddings.weight  # (positions, E)
        width = positions.shape[1]
        attentions: list[Any] = [layers[0].attention.self for _, layers in self.stacks]
        num_waves = min(min(each.attention_head_size, each.all_head_size // 2) // 2 for each in attentions)
        frequencies = math.pi * ((torch.arange(num_waves) + 0.5) * GOLDEN_RATIO % 1)  # without a common period
        angles = torch.arange(len(positions))[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1) / num_waves**0.5  # (positions, 2 * waves), of length 1
        directions = torch.linalg.qr(torch.randn(width, 2 * num_waves)).Q  # (E, 2 * waves)
        length = self.config.initializer_range * width**0.5  # that of word embeddings
        positions.copy_(length * waves @ directions.T)
        for (projection, layers), attention in zip(self.stacks, attentions, strict=True):
            found = directions if projection is None else _preserve_directions(projection, directions)
            head_size = attention.attention_head_size
            # The squared length of a state is H, and about half of it is due to its position.
            scale = (INITIAL_SCORE * head_size**0.5 / (attention.all_head_size / 2)) ** 0.5
            for head in range(attention.num_attention_heads):
                turns = frequencies * (head // 2 + 1) * (1 if head % 2 else -1)
                cos, sin = turns.cos().diag(), turns.sin().diag()
                turned = torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])
                rows = slice(head * head_size, head * head_size + 2 * num_waves)
                for layer in layers:
                    layer.attention.self.query.weight[rows] = scale * turned @ found.T
                    layer.attention.self.key.weight[rows] = scale * found.T

    def attention_inputs(
        self, attention_mask: torch.Tensor | None, sequence_ids: torch.Tensor | None
    ) -> dict[str, torch.Tensor | None]:
        """The inputs with which the encoder reads each sequence of a packed row as if it were alone.

        `sequence_ids` (batch, time) number the sequences; without them `attention_mask` is returned as it is. With
        them it is (batch, 1, time, time), and `position_ids` (batch, time) start anew in each sequence.
        """
        if sequence_ids is None:
            return {"attention_mask": attention_mask}
        is_same = sequence_ids.unsqueeze(2) == sequence_ids.unsqueeze(1)
        position_ids = is_same.tril(-1).sum(dim=-1)  # earlier tokens of the sequence
        attention_mask = is_same.unsqueeze(1)
        if self.config._attn_implementation == "eager":  # which adds the mask to the scores
            attention_mask = torch.zeros_like(attention_mask, dtype=torch.float32).masked_fill_(~attention_mask, -1e9)
        return {"attention_mask": attention_mask, "position_ids": position_ids}


def _preserve_directions(projection: nn.Linear, directions: torch.Tensor) -> torch.Tensor:
    """Initialize a projection from E to H to preserve lengths (but for a factor √H / √E) and angles of the orthonormal
    `directions` (E, n) and of as many others as possible; returns the images of these directions, (H, n), orthonormal.
    """
    wide, narrow = projection.weight.shape[1], projection.weight.shape[0]
    number = directions.shape[1]
    others = torch.linalg.qr(torch.cat([directions, torch.randn(wide, wide - number)], dim=1)).Q[:, number:]
    sources = torch.cat([directions, others], dim=1)[:, :narrow]
    targets = torch.linalg.qr(torch.randn(narrow, narrow)).Q[:, :wide]
    projection.weight.copy_((narrow / wide) ** 0.5 * targets @ sources.T)
    return targets[:, :number]
