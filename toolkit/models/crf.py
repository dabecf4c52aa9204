"""A conditional random field on top of any tagger: it scores whole sequences of tags, not one tag at a time.

Lafferty, McCallum & Pereira (2001), "Conditional random fields: probabilistic models for segmenting and labeling
sequence data", https://repository.upenn.edu/cis_papers/159. The field itself is pytorch-crf's.

Shape legend: B batch, P pieces, W words, L labels.
"""

from functools import lru_cache

import torch
from torchcrf import CRF
from transformers import PreTrainedModel
from transformers import initialization as init

IGNORED = -100


@lru_cache
def with_crf(model_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """`model_class`, a token classifier, with a field over its logits as `crf`.

    The logits stay as they are, the field's emissions, and the checkpoint keeps the name of `model_class`: without
    this package it opens as a plain tagger. The loss is the mean negative log-likelihood of the labels, in
    nats a word.
    """

    class TaggerWithCrf(model_class):  # type: ignore[misc, valid-type]
        def __init__(self, config):
            super().__init__(config)
            self.crf = CRF(config.num_labels, batch_first=True)
            self._init_weights(self.crf)

        @torch.no_grad()
        def _init_weights(self, module) -> None:
            if isinstance(module, CRF):
                for parameter in module.parameters():
                    init.zeros_(parameter)
            else:
                super()._init_weights(module)

        def forward(self, *args, labels: torch.Tensor | None = None, **kwargs):
            output = super().forward(*args, **kwargs)
            if labels is not None:
                output.loss = -self.crf(*_words(output.logits.float(), labels), reduction="token_mean")
            return output

        def decode(self, emissions: torch.Tensor, mask: torch.Tensor) -> tuple[list[list[int]], torch.Tensor]:
            """The best tags of each sentence, and for each word the probability of its tag, (B, W).

            `emissions` (B, W, L) and `mask` (B, W) are of words, not of pieces.
            """
            emissions = emissions.float()
            best = self.crf.decode(emissions, mask)
            with torch.inference_mode(False), torch.enable_grad():
                emissions, mask = emissions.detach().clone().requires_grad_(), mask.clone()
                tags = torch.zeros_like(mask, dtype=torch.long)
                for row, path in zip(tags, best, strict=True):
                    row[: len(path)] = torch.tensor(path)
                # The gradient of log p(tags) by an emission is 1 or 0, whether the tag is that one, less its marginal.
                (gradient,) = torch.autograd.grad(self.crf(emissions, tags, mask), emissions)
            return best, (1 - gradient.gather(-1, tags.unsqueeze(-1)).squeeze(-1)) * mask

    TaggerWithCrf.__name__ = TaggerWithCrf.__qualname__ = model_class.__name__
    return TaggerWithCrf


def _words(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`logits` (B, P, L) and `labels` (B, P) of pieces -> emissions (B, W, L), tags, mask (B, W) of labelled words."""
    labelled = labels != IGNORED
    width = int(labelled.sum(dim=1).max())
    order = labelled.int().argsort(dim=1, descending=True, stable=True)[:, :width]  # (B, W)
    emissions = logits.gather(1, order.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))
    mask = labelled.gather(1, order)
    return emissions, labels.gather(1, order).where(mask, 0), mask
