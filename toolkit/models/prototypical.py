"""Any encoder of images while it learns to tell classes apart that it knows by a few examples each.

Snell, Swersky & Zemel (2017), "Prototypical networks for few-shot learning", https://arxiv.org/abs/1703.05175.

Shape legend: W classes, N images of each, S of them labelled, C channels, H and V height and width, D features.
"""

from typing import Any

import torch
import transformers
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .heads import pooled


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
        self.encoder = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config.encoder))
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> ModelOutput:
        """`pixel_values` (W, N, C, H, V), the labelled ones first -> `loss` and `logits` (W * (N - S), W)."""
        features = pooled(self.encoder(pixel_values.flatten(0, 1)))
        features = features.view(*pixel_values.shape[:2], -1)  # (W, N, D)
        prototypes = features[:, : self.config.shots].mean(dim=1)
        queries = features[:, self.config.shots :].flatten(0, 1)
        logits = -torch.cdist(queries, prototypes).square()
        labels = torch.arange(len(prototypes), device=logits.device)
        labels = labels.repeat_interleave(len(queries) // len(prototypes))
        return ModelOutput(loss=F.cross_entropy(logits, labels), logits=logits)
