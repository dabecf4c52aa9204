"""Prototypical networks: an image encoder trained in episodes.

Snell, Swersky & Zemel (2017), "Prototypical networks for few-shot learning", https://arxiv.org/abs/1703.05175.

Shape legend: W ways (classes), N images per class, S shots, C channels, H and V height and width, D features.
"""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput

from .heads import ImagePreTrainedModel, encoder_from_config, pool_image_features


class PrototypicalConfig(PreTrainedConfig):
    """Configuration of a prototypical network; `encoder` is that of the encoder, as a dictionary."""

    model_type = "toolkit-prototypical"

    encoder: dict[str, Any] | None = None
    shots: int = 1  # labelled images per class in an episode


class PrototypicalForPreTraining(ImagePreTrainedModel):
    """Any image encoder; the logit of a class is minus the squared distance to its prototype."""

    config_class = PrototypicalConfig
    base_model_prefix = "encoder"

    def __init__(self, config: PrototypicalConfig):
        super().__init__(config)
        self.encoder = encoder_from_config(config.encoder)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> ModelOutput:
        """Compute N episodes from `pixel_values` (W, N, C, H, V); each image in turn starts the support set.

        Returns `loss`, the mean cross-entropy over the queries of all episodes, and `logits` (W * (N - S), W) of the
        episode whose support set is the first S images of each class.
        """
        num_images, shots = pixel_values.shape[1], self.config.shots
        features = pool_image_features(self.encoder(pixel_values.flatten(0, 1)))
        features = features.view(*pixel_values.shape[:2], -1)  # (W, N, D)
        places = torch.arange(num_images, device=features.device)
        support = (places.unsqueeze(1) + places[:shots]) % num_images  # (N episodes, S)
        prototypes = features[:, support].mean(dim=2)  # (W, N episodes, D)
        logits = -torch.cdist(features.flatten(0, 1), prototypes.transpose(0, 1)).square()  # (N episodes, W * N, W)
        is_query = (support.unsqueeze(2) != places).all(dim=1).repeat(1, len(features))  # (N episodes, W * N)
        labels = torch.arange(len(features), device=features.device).repeat_interleave(num_images)
        loss = F.cross_entropy(logits[is_query], labels.expand(num_images, -1)[is_query])
        return ModelOutput(loss=loss, logits=logits[0, is_query[0]])
