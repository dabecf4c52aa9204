"""The output layer of a recurrent language model: the softmax over words or tokens, exact or sampled.

Shape legend: N predicted words, K negatives, V output words, H width of a state.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .sampled_softmax import SampledSoftmax

LOGIT_ROWS = 1024  # words whose logits are in memory at a time


class LanguageModelHeadMixin:
    """A model that predicts words from states: output embeddings (V, H) and one bias for each word."""

    def add_output_layer(self, vocab_size: int, width: int) -> None:
        self.output_embeddings = nn.Embedding(vocab_size, width)
        self.output_bias = nn.Embedding(vocab_size, 1)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "output_embeddings", None):
            init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif module is getattr(self, "output_bias", None):
            init.zeros_(module.weight)

    def output_logits(self, states: torch.Tensor) -> torch.Tensor:
        """`states` (…, H) -> logits (…, V)."""
        return F.linear(states, self.output_embeddings.weight, self.output_bias.weight.squeeze(-1))

    def output_loss(
        self,
        states: torch.Tensor,
        targets: torch.Tensor,
        negatives: torch.Tensor | None = None,
        negative_log_counts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mean negative log-likelihood of `targets` (N,), -100 for none, from `states` (N, H).

        With `negatives` (K,) a target competes with them alone; `negative_log_counts` (V,) has the logarithm of the
        expected number of times that each word is among them.
        """
        is_predicted = targets != -100
        states, targets = states[is_predicted], targets[is_predicted]
        if negatives is not None:
            return self._sampled_loss(states, targets, negatives, negative_log_counts)
        slices = zip(states.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True)
        losses = (F.cross_entropy(self.output_logits(s), t, reduction="sum") for s, t in slices)
        return sum(losses) / len(targets)

    def _sampled_loss(self, states, targets, negatives, log_counts) -> torch.Tensor:
        words = torch.cat([targets, negatives])  # (N + K,)
        embeddings = self.output_embeddings(words)
        offsets = self.output_bias(words).squeeze(-1) - log_counts[words]
        num_targets = len(targets)
        target_logits = (states * embeddings[:num_targets]).sum(dim=-1) + offsets[:num_targets]  # (N,)
        places = negatives.new_full((self.output_embeddings.num_embeddings,), -1)
        places[negatives] = torch.arange(len(negatives), device=negatives.device)
        return SampledSoftmax.apply(
            states, target_logits, embeddings[num_targets:], offsets[num_targets:], places[targets]
        )
