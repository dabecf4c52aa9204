"""A linear-chain conditional random field on top of any token classifier.

Lafferty, McCallum & Pereira (2001), "Conditional random fields: probabilistic models for segmenting and labeling
sequence data", https://repository.upenn.edu/cis_papers/159. The field is pytorch-crf's.

Shape legend: B batch, P pieces, W words, L labels.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torchcrf import CRF
from transformers import PreTrainedModel
from transformers import initialization as init

IGNORED = -100


class CrfMixin:
    """Adds a field `crf` to a token classifier, whose logits are its emissions.

    A checkpoint opens without this package as a plain token classifier, which ignores the weights of the field.
    """

    plain_class: type[PreTrainedModel]  # the token classifier

    def __init__(self, config):
        super().__init__(config)  # type: ignore[call-arg]
        self.crf = CRF(config.num_labels, batch_first=True)
        self._init_weights(self.crf)

    @torch.no_grad()
    def _init_weights(self, module) -> None:
        if isinstance(module, CRF):
            for parameter in module.parameters():
                init.zeros_(parameter)
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **kwargs) -> None:
        """Save the model, with a configuration that names the plain class."""
        super().save_pretrained(save_directory, is_main_process, **kwargs)
        # transformers 5.24 always records the name of this class (modeling_utils.py, line 3447), which only we know.
        self.config.architectures = [self.plain_class.__name__]
        if is_main_process:
            self.config.save_pretrained(save_directory)

    def forward(self, *args, labels: torch.Tensor | None = None, **kwargs):
        """The output of the token classifier; with `labels` (B, P), -100 where a piece has none, its `loss` is the
        mean negative log-likelihood of the labels, in nats per word."""
        output = super().forward(*args, **kwargs)
        if labels is not None:
            output.loss = -self.crf(*_labelled_words(output.logits.float(), labels), reduction="token_mean")
        return output

    def decode(self, emissions: torch.Tensor, mask: torch.Tensor) -> tuple[list[list[int]], torch.Tensor]:
        """Find the best tags of each sentence, and the marginal probability of each of these tags, (B, W), from the
        `emissions` (B, W, L) of words, not of pieces, and their `mask` (B, W)."""
        emissions = emissions.float()
        best = self.crf.decode(emissions, mask)
        with torch.inference_mode(False), torch.enable_grad():
            emissions, mask = emissions.detach().clone().requires_grad_(), mask.clone()
            tags = torch.zeros_like(mask, dtype=torch.long)
            for row, path in zip(tags, best, strict=True):
                row[: len(path)] = torch.tensor(path)
            # The gradient of log p(tags) with respect to the emission of a chosen tag is 1 minus its marginal.
            (gradient,) = torch.autograd.grad(self.crf(emissions, tags, mask), emissions)
        return best, (1 - gradient.gather(-1, tags.unsqueeze(-1)).squeeze(-1)) * mask


@lru_cache
def with_crf(model_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The subclass of a token classifier that has a conditional random field."""
    return type(f"{model_class.__name__}WithCrf", (CrfMixin, model_class), {"plain_class": model_class})


def _labelled_words(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`logits` (B, P, L) and `labels` (B, P) of pieces -> emissions (B, W, L), tags, mask (B, W) of labelled words."""
    is_labelled = labels != IGNORED
    width = int(is_labelled.sum(dim=1).max())
    order = is_labelled.int().argsort(dim=1, descending=True, stable=True)[:, :width]  # (B, W)
    emissions = logits.gather(1, order.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))
    mask = is_labelled.gather(1, order)
    return emissions, labels.gather(1, order).where(mask, 0), mask
