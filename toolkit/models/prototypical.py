"""Any encoder of images while it learns to tell classes apart that it knows by a few examples each.

Snell, Swersky & Zemel (2017), "Prototypical networks for few-shot learning", https://arxiv.org/abs/1703.05175.

Shape legend: W classes, N images of each, S of them labelled, C channels, H and V height and width, D features.
"""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .heads import new_encoder, pooled


class PrototypicalConfig(PreTrainedConfig):
    """`encoder` is the configuration of the encoder, as a dictionary, `shots` how many images of a class are labelled
    in an episode."""

    model_type = "toolkit-prototypical"

    encoder: dict[str, Any] | None = None
    shots: int = 1


class PrototypicalForPreTraining(PreTrainedModel):
    config_class = PrototypicalConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: PrototypicalConfig):
        super().__init__(config)
        self.encoder = new_encoder(config.encoder)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> ModelOutput:
        """`pixel_values` (W, N, C, H, V) -> `loss` and `logits` (W * (N - S), W), of the first S images as the
        labelled ones. In the loss every image takes its turn to be labelled, with the S - 1 after it: N episodes for
        one pass through the encoder."""
        num_images, shots = pixel_values.shape[1], self.config.shots
        features = pooled(self.encoder(pixel_values.flatten(0, 1)))
        features = features.view(*pixel_values.shape[:2], -1)  # (W, N, D)
        places = torch.arange(num_images, device=features.device)
        labelled = (places.unsqueeze(1) + places[:shots]) % num_images  # (N turns, S)
        prototypes = features[:, labelled].mean(dim=2)  # (W, N turns, D)
        logits = -torch.cdist(features.flatten(0, 1), prototypes.transpose(0, 1)).square()  # (N turns, W * N, W)
        is_query = (labelled.unsqueeze(2) != places).all(dim=1).repeat(1, len(features))  # (N turns, W * N)
        labels = torch.arange(len(features), device=features.device).repeat_interleave(num_images)
        loss = F.cross_entropy(logits[is_query], labels.expand(num_images, -1)[is_query])
        return ModelOutput(loss=loss, logits=logits[0, is_query[0]])
