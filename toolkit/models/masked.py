"""What BERT and ELECTRA share: computing at masked positions only what nothing else needs, and how training begins.

Mixed into transformers' own classes, whose weights, configurations and checkpoints stay as they are.
"""

import torch
from torch import nn
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


class LearnsToFillIn:
    """Of a model that guesses masked tokens; `output_bias` (vocab_size,) is the bias of its guesses."""

    output_bias: nn.Parameter

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
