"""transformers' own BERT, whose masked language model computes at masked positions only what nothing else needs: the
queries and the feed-forward of its last layer, and its output layer.

Devlin, Chang, Lee & Toutanova (2019), https://arxiv.org/abs/1810.04805. Only the way to the loss differs: weights,
configuration and checkpoints are those of `transformers.BertForMaskedLM`, which opens them without this package.
"""

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.bert.modeling_bert import BertCrossAttention, BertLayer


class BertLastLayer(BertLayer):
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


class BertForMaskedLM(transformers.BertForMaskedLM):
    def __init__(self, config: transformers.BertConfig):
        super().__init__(config)
        self.bert.encoder.layer[-1].__class__ = BertLastLayer  # the same parameters, used otherwise

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs,
    ) -> MaskedLMOutput:
        """`input_ids` and `labels` (batch, time), labels -100 where nothing is masked. With labels, `logits` has one
        row a masked token, (masked, vocab_size), in reading order; without, one a token as in transformers.

        `sequence_ids` (batch, time) in place of `attention_mask` number the sequences that share a row, padding as one
        of them: each is read as if it stood alone.
        """
        if sequence_ids is not None:
            attention_mask = (sequence_ids.unsqueeze(2) == sequence_ids.unsqueeze(1)).unsqueeze(1)  # from, to
            kwargs["position_ids"] = attention_mask.squeeze(1).tril(-1).sum(dim=-1)  # earlier tokens of the sequence
        if labels is None:
            return super().forward(input_ids, attention_mask, **kwargs)
        masked = labels != -100
        states = self.bert(input_ids, attention_mask, wanted=masked, **kwargs).last_hidden_state  # (masked, H)
        logits = self.cls(states)
        return MaskedLMOutput(loss=F.cross_entropy(logits, labels[masked]), logits=logits)

    def set_dropout(self, probability: float) -> None:
        """Of the modules, from now on; the configuration, which fine-tuning starts from, stays as it is."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability

    @torch.no_grad()
    def set_output_bias(self, counts: torch.Tensor) -> None:
        """So that what knows nothing else guesses tokens as often as they occur, `counts` (vocab_size,); adds one."""
        shares = (counts + 1) / (counts + 1).sum()
        self.cls.predictions.bias.copy_(shares.log())

    @torch.no_grad()
    def set_word_embeddings(self, ids: torch.Tensor, vectors: torch.Tensor) -> None:
        """Of the tokens `ids` (n,) to `vectors` (n, hidden_size), centred and scaled to the spread of random ones."""
        vectors = vectors - vectors.mean(dim=0)
        self.bert.embeddings.word_embeddings.weight[ids] = vectors * (
            self.config.initializer_range / vectors.std(correction=0)
        )
