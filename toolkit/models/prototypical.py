"""Prototypical networks: an image encoder trained in episodes.

Snell, Swersky & Zemel (2017), "Prototypical networks for few-shot learning", https://arxiv.org/abs/1703.05175.

Shape legend: W ways (classes of an episode, in training those of one process), N images per class, S shots,
C channels, H and V height and width, D features.
"""

from typing import Any

import torch
from torch import distributed
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.modeling_outputs import ImageClassifierOutput

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

    def forward(self, pixel_values: torch.Tensor, is_filler: bool = False, **kwargs) -> ImageClassifierOutput:
        """Compute N episodes from `pixel_values` (W, N, C, H, V); each image in turn starts the support set.

        In training, the episodes have the classes of all processes, of which this process has W; with `is_filler` it
        has none, and its loss does not count. Returns `loss`, the mean cross-entropy over the queries of these W
        classes in all episodes, and `logits` (W * (N - S), classes) of the episode whose support set is the first S
        images of each class.
        """
        num_images, shots = pixel_values.shape[1], self.config.shots
        features = pool_image_features(self.encoder(pixel_values.flatten(0, 1)))
        features = features.view(*pixel_values.shape[:2], -1)  # (W, N, D)
        every, first = features, 0
        if self.training and distributed.is_available() and distributed.is_initialized():
            every, first = gather_classes(features, 0 if is_filler else len(features))
        places = torch.arange(num_images, device=features.device)
        support = (places.unsqueeze(1) + places[:shots]) % num_images  # (N episodes, S)
        prototypes = every[:, support].mean(dim=2)  # (classes, N episodes, D)
        logits = -torch.cdist(features.flatten(0, 1), prototypes.transpose(0, 1)).square()  # (N, W * N, classes)
        is_query = (support.unsqueeze(2) != places).all(dim=1).repeat(1, len(features))  # (N episodes, W * N)
        labels = torch.arange(first, first + len(features), device=features.device).repeat_interleave(num_images)
        loss = F.cross_entropy(logits[is_query], labels.expand(num_images, -1)[is_query])
        return ImageClassifierOutput(loss=loss, logits=logits[0, is_query[0]])


@torch.compiler.disable  # of collectives
def gather_classes(features: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, int]:
    """The features (classes, N, D) of all processes, with their gradient, and the place of this process's first class.

    Of `features` (W, N, D) the first `num_classes` are this process's; one that has none gets the place of any class.
    """
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.long, device=features.device)
    rank = distributed.get_rank()
    counts[rank] = num_classes
    distributed.all_reduce(counts)
    before, after = int(counts[:rank].sum()), int(counts[rank + 1 :].sum())
    padded = F.pad(features[:num_classes].float(), (0, 0, 0, 0, before, after))
    return SumOverProcesses.apply(padded), min(before, before + num_classes + after - 1)


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; the gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return SumOverProcesses.apply(gradient)
