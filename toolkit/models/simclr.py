"""SimCLR: an encoder of images or recordings with a projection head, trained to match two views of the same one.

Chen, Kornblith, Norouzi & Hinton (2020), "A simple framework for contrastive learning of visual representations",
https://arxiv.org/abs/2002.05709.

Shape legend: B images or recordings, C channels, S height and width, T frames, M mel filters, P size of a projection.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from .heads import encoder_from_config


class SimCLRConfig(PreTrainedConfig):
    """Configuration of SimCLR; `encoder` is that of the encoder, as a dictionary."""

    model_type = "toolkit-simclr"

    encoder: dict[str, Any] | None = None
    hidden_size: int = 128  # of the pooled output of the encoder
    projection_size: int = 128
    temperature: float = 0.5


class SimCLRForPreTraining(PreTrainedModel):
    """Any encoder of images or recordings with a two-layer projection head."""

    config_class = SimCLRConfig
    base_model_prefix = "encoder"

    def __init__(self, config: SimCLRConfig):
        super().__init__(config)
        self.encoder = encoder_from_config(config.encoder)
        self.projection = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size, bias=False),
            nn.BatchNorm1d(config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.projection_size),
        )
        self.post_init()

    @classmethod
    @torch.no_grad()
    def from_encoder(
        cls, encoder: PreTrainedModel, example: dict[str, torch.Tensor], projection_size: int, temperature: float
    ) -> "SimCLRForPreTraining":
        """Put a new projection head on an encoder of inputs such as `example`."""
        is_training = encoder.training
        pooled = encoder.eval()(**example).pooler_output
        config = SimCLRConfig(
            encoder=encoder.config.to_dict(),
            hidden_size=pooled.flatten(1).shape[1],
            projection_size=projection_size,
            temperature=temperature,
        )
        model = cls(config)
        model.encoder = encoder.train(is_training)
        return model

    def forward(self, **inputs: torch.Tensor) -> ImageClassifierOutput:
        """Compute `loss` from `pixel_values` (2B, C, S, S) or `input_values` (2B, T, M): all first views, then all
        second views."""
        projections = self.projection(self.encoder(**inputs).pooler_output.flatten(1))
        return ImageClassifierOutput(loss=nt_xent_loss(projections, self.config.temperature))


def nt_xent_loss(projections: torch.Tensor, temperature: float) -> torch.Tensor:
    """The normalized temperature-scaled cross-entropy loss of `projections` (2B, P), equation 1 of the paper."""
    is_same = torch.eye(len(projections), dtype=torch.bool, device=projections.device)
    return info_nce_loss(projections, is_same.roll(len(projections) // 2, dims=0), temperature)


def info_nce_loss(features: torch.Tensor, is_positive: torch.Tensor, temperature: float) -> torch.Tensor:
    """The mean over positive pairs of the cross-entropy of finding the second item, given the first, among all others.

    `features` (N, D) are compared by cosine similarity, divided by `temperature`; `is_positive` (N, N) is True for
    pairs and False on the diagonal. With pairs of the same class it is L_out of Khosla et al. (2020), "Supervised
    contrastive learning", https://arxiv.org/abs/2004.11362, but with the mean over pairs.
    """
    normalized = F.normalize(features.float(), dim=1)
    similarities = normalized @ normalized.T / temperature
    similarities.fill_diagonal_(float("-inf"))
    return -similarities.log_softmax(dim=1)[is_positive].mean()
