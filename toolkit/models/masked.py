"""What BERT and ELECTRA share: computing at masked positions only what nothing else needs, and how training begins.

Mixed into transformers' own classes, whose weights, configurations and checkpoints stay as they are.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.bert.modeling_bert import BertCrossAttention


class MaskedLastLayer:
    """The last layer of a stack: for masked positions alone it needs their queries and their feed-forward."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *args,
        wanted: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """`hidden_states` (batch, time, H). With `wanted` (batch, time), true or false, only the new states of those
        positions, (wanted, H) in reading order; they attend to all positions as ever."""
        if wanted is None:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        # As many positions of each row as of the row that wants most; what that adds to others is dropped below.
        counts = wanted.sum(dim=1)  # (batch,)
        positions = wanted.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max()), None]
        wanted = torch.arange(positions.shape[1], device=counts.device) < counts[:, None]  # (batch, most)
        if attention_mask is not None:  # (batch, 1, time, time)
            attention_mask = attention_mask.take_along_dim(positions[:, None], dim=2)
        states = hidden_states.take_along_dim(positions, dim=1)  # (batch, most, H)
        # Cross-attention is attention whose queries are of other positions than its keys; it has the same parameters.
        attended, _ = BertCrossAttention.forward(self.attention.self, states, hidden_states, attention_mask, **kwargs)
        return self.feed_forward_chunk(self.attention.output(attended[wanted], states[wanted]))


class Stack(NamedTuple):
    """Layers on the embeddings; `projection` comes between where the embeddings are of another width."""

    projection: nn.Linear | None
    layers: Iterable[Any]
    config: PreTrainedConfig

    @property
    def head_size(self) -> int:
        return self.config.hidden_size // self.config.num_attention_heads


GOLDEN_RATIO = (5**0.5 - 1) / 2
LEAD = 12.0  # of a head's score for the place that it begins by looking at, beside places far from it


class LearnsToFillIn:
    """Of a model that guesses masked tokens; `output_bias` (vocab_size,) is the bias of its guesses, `stacks` are all
    that stand on its embeddings."""

    output_bias: nn.Parameter
    stacks: list[Stack]

    def set_dropout(self, probability: float) -> None:
        """Of the modules, from now on; the configuration, which fine-tuning starts from, stays as it is."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability

    @torch.no_grad()
    def set_output_bias(self, counts: torch.Tensor) -> None:
        """So that what knows nothing else guesses tokens as often as they occur, `counts` (vocab_size,); adds one."""
        shares = (counts + 1) / (counts + 1).sum()
        self.output_bias.copy_(shares.log())

    @torch.no_grad()
    def set_word_embeddings(self, ids: torch.Tensor, vectors: torch.Tensor) -> None:
        """Of the tokens `ids` (n,) to `vectors` (n, width), centred and scaled to the spread of random ones."""
        vectors = vectors - vectors.mean(dim=0)
        self.get_input_embeddings().weight[ids] = vectors * (self.config.initializer_range / vectors.std(correction=0))

    @torch.no_grad()
    def look_at_neighbours(self) -> None:
        """Let each head of each layer begin by looking at one place: that before, that after, two before, and so on.

        The embeddings of positions become sines and cosines, in some random directions of the space. Keys read there
        what position they are of, queries the position that their head looks at. All of it goes on learning. Otherwise
        a small encoder guesses by frequency for thousands of steps, until its heads have found their neighbours.

        Such heads, but never trained, are of Raganato, Scherrer & Tiedemann (2020), https://arxiv.org/abs/2002.10260;
        to start attention where training would bring it, of Trockman & Kolter (2023), "Mimetic initialization of
        self-attention layers", https://arxiv.org/abs/2305.09828.
        """
        positions = self.base_model.embeddings.position_embeddings.weight  # (positions, E)
        width = positions.shape[1]
        num_waves = min(min(stack.head_size, stack.config.hidden_size // 2) // 2 for stack in self.stacks)
        frequencies = math.pi * ((torch.arange(num_waves) + 0.5) * GOLDEN_RATIO % 1)  # without a common period
        angles = torch.arange(len(positions))[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1) / num_waves**0.5  # (positions, waves), of length 1
        directions = torch.linalg.qr(torch.randn(width, 2 * num_waves)).Q  # (E, waves)
        positions.copy_(self.config.initializer_range * width**0.5 * waves @ directions.T)  # as long as those of words
        for stack in self.stacks:
            found = directions if stack.projection is None else _carry_over(stack.projection, directions)  # (H, waves)
            # A state's squared length is H, of which positions have about half.
            scale = (LEAD * stack.head_size**0.5 / (stack.config.hidden_size / 2)) ** 0.5
            for head in range(stack.config.num_attention_heads):
                turns = frequencies * (head // 2 + 1) * (1 if head % 2 else -1)
                cos, sin = turns.cos().diag(), turns.sin().diag()
                turned = torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])
                rows = slice(head * stack.head_size, head * stack.head_size + 2 * num_waves)
                for layer in stack.layers:
                    layer.attention.self.query.weight[rows] = scale * turned @ found.T
                    layer.attention.self.key.weight[rows] = scale * found.T

    def attention_inputs(
        self, attention_mask: torch.Tensor | None, sequence_ids: torch.Tensor | None
    ) -> dict[str, torch.Tensor | None]:
        """What the encoder is given: `attention_mask` (batch, time) as it is, or what makes it read each of the
        sequences that share a row, `sequence_ids` (batch, time), as if it stood alone: an `attention_mask` (batch, 1,
        from, to) and `position_ids` (batch, time)."""
        if sequence_ids is None:
            return {"attention_mask": attention_mask}
        is_same = sequence_ids.unsqueeze(2) == sequence_ids.unsqueeze(1)
        position_ids = is_same.tril(-1).sum(dim=-1)  # earlier tokens of the sequence
        attention_mask = is_same.unsqueeze(1)
        if self.config._attn_implementation == "eager":  # which adds the mask to the scores
            attention_mask = torch.zeros_like(attention_mask, dtype=torch.float32).masked_fill_(~attention_mask, -1e9)
        return {"attention_mask": attention_mask, "position_ids": position_ids}


def _carry_over(projection: nn.Linear, directions: torch.Tensor) -> torch.Tensor:
    """Let a projection from E to H keep lengths and angles of `directions` (E, n), orthonormal, and of as many others
    as it can, but that a vector of length √E becomes one of √H. Returns what they become, (H, n), orthonormal."""
    wide, narrow = projection.weight.shape[1], projection.weight.shape[0]
    number = directions.shape[1]
    others = torch.linalg.qr(torch.cat([directions, torch.randn(wide, wide - number)], dim=1)).Q[:, number:]
    sources = torch.cat([directions, others], dim=1)[:, :narrow]
    targets = torch.linalg.qr(torch.randn(narrow, narrow)).Q[:, :wide]
    projection.weight.copy_((narrow / wide) ** 0.5 * targets @ sources.T)
    return targets[:, :number]
