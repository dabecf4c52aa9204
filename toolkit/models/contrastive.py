"""Any encoder of images with what SimCLR adds to it while it learns without labels.

Chen, Kornblith, Norouzi & Hinton (2020), "A simple framework for contrastive learning of visual representations",
https://arxiv.org/abs/2002.05709: two views of one image are to be told from all others by their projections.

Shape legend: B images, C channels, S height and width, P size of a projection.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .heads import new_encoder


class SimCLRConfig(PreTrainedConfig):
    """`encoder` is the configuration of the encoder, as a dictionary, and `hidden_size` what it pools."""

    model_type = "toolkit-simclr"

    encoder: dict[str, Any] | None = None
    hidden_size: int = 128
    projection_size: int = 128
    temperature: float = 0.5


class SimCLRForPreTraining(PreTrainedModel):
    config_class = SimCLRConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: SimCLRConfig):
        super().__init__(config)
        self.encoder = new_encoder(config.encoder)
        self.projection = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size, bias=False),
            nn.BatchNorm1d(config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.projection_size),
        )
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> ModelOutput:
        """`pixel_values` (2B, C, S, S), the second view of each image B places behind the first -> `loss`."""
        projections = self.projection(self.encoder(pixel_values).pooler_output.flatten(1))
        return ModelOutput(loss=contrastive_loss(projections, self.config.temperature))


@torch.no_grad()
def around(
    encoder: PreTrainedModel, image_size: int, projection_size: int, temperature: float
) -> SimCLRForPreTraining:
    """The encoder, of images of that size, with a new projection."""
    is_training = encoder.training
    pooled = encoder.eval()(torch.zeros(1, 3, image_size, image_size)).pooler_output
    config = SimCLRConfig(
        encoder=encoder.config.to_dict(),
        hidden_size=pooled.flatten(1).shape[1],
        projection_size=projection_size,
        temperature=temperature,
    )
    model = SimCLRForPreTraining(config)
    model.encoder = encoder.train(is_training)
    return model


def contrastive_loss(projections: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent, equation 1 of the paper: of `projections` (2B, P) the mean cross-entropy, in nats, of each one's other
    view among all but itself."""
    itself = torch.eye(len(projections), dtype=torch.bool, device=projections.device)
    return pair_loss(projections, itself.roll(len(projections) // 2, dims=0), temperature)


def pair_loss(features: torch.Tensor, alike: torch.Tensor, temperature: float) -> torch.Tensor:
    """Of `features` (B, D) the mean, over pairs that are `alike` (B, B), of minus the log of the second one's share
    among all but the first, by cosine to the first."""
    directions = F.normalize(features.float(), dim=1)
    similarities = directions @ directions.T / temperature
    similarities.fill_diagonal_(float("-inf"))
    return -similarities.log_softmax(dim=1)[alike].mean()
