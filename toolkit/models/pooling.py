"""Any encoder of images that ends in maps of features, under a pooling by choice: a vector of images of every size.

Maximum, mean, L2, which is `1/n · sqrt(Σ h²)` over the n places of a map, and the generalised mean
`(1/n · Σ h^p)^(1/p)` of Radenović, Tolias & Chum (2018), "Fine-tuning CNN image retrieval with no human annotation",
https://arxiv.org/abs/1711.02512, whose p is learned: 1 is the mean, and the larger, the nearer to the maximum.

Shape legend: B batch, C channels, S height and width, H channels of the last maps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

from .fast_resnet import FastResNetConfig, FastResNetModel
from .googlenet import GoogLeNetConfig, GoogLeNetModel
from .heads import ClassifiesImages, new_encoder, under
from .lenet import LeNetConfig, LeNetModel
from .resnet import SmallImageResNetConfig, SmallImageResNetModel

OWN = (  # a copy of this file finds them beside it
    (FastResNetConfig, FastResNetModel),
    (GoogLeNetConfig, GoogLeNetModel),
    (LeNetConfig, LeNetModel),
    (SmallImageResNetConfig, SmallImageResNetModel),
)
POWER, SMALLEST = 3.0, 1e-6  # what the generalised mean begins with, and takes the place of what is not positive


class PooledConfig(PreTrainedConfig):
    """`encoder` is the configuration of the encoder, as a dictionary; `pooling` is max, average, l2 or gem."""

    model_type = "toolkit-pooled"

    encoder: dict[str, Any] | None = None
    pooling: str = "average"
    hidden_size: int | None = None


class GlobalPooling(nn.Module):
    """(B, H, S, S) -> (B, H)"""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        if kind == "gem":
            self.power = nn.Parameter(torch.tensor([POWER]))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        places = maps.flatten(2)
        if self.kind == "max":
            return places.amax(dim=2)
        if self.kind == "l2":
            return places.norm(dim=2) / places.shape[2]
        if self.kind == "gem":
            return places.clamp(min=SMALLEST).pow(self.power).mean(dim=2).pow(1 / self.power)
        return places.mean(dim=2)


class PooledPreTrainedModel(PreTrainedModel):
    config_class = PooledConfig
    base_model_prefix = "pooled"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GlobalPooling) and module.kind == "gem":
            init.constant_(module.power, POWER)


class PooledModel(PooledPreTrainedModel):
    def __init__(self, config: PooledConfig):
        super().__init__(config)
        self.encoder = new_encoder(config.encoder, OWN)
        self.pooling = GlobalPooling(config.pooling)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor | Sequence[torch.Tensor],
        output_hidden_states: bool = False,
        **kwargs,
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """`pixel_values` (B, C, S, S) -> `pooler_output` (B, H), and the maps.

        Of a list of images, (C, S, S) each and of whatever sizes, those of one size go through the encoder together,
        and there is the `pooler_output` alone. One that has no other of its size is normalised as in use, also in
        training.
        """
        if isinstance(pixel_values, torch.Tensor):
            outputs = self.encoder(pixel_values, output_hidden_states=output_hidden_states)
            return BaseModelOutputWithPoolingAndNoAttention(
                last_hidden_state=outputs.last_hidden_state,
                pooler_output=self.pooling(outputs.last_hidden_state),
                hidden_states=outputs.hidden_states,
            )
        of_size: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(pixel_values):
            of_size.setdefault(image.shape, []).append(index)
        vectors = []
        for indices in of_size.values():
            with _batch_normalised(self.encoder, self.training and len(indices) > 1):
                vectors.append(self(torch.stack([pixel_values[i] for i in indices])).pooler_output)
        places = torch.tensor([index for indices in of_size.values() for index in indices])
        return BaseModelOutputWithPoolingAndNoAttention(pooler_output=torch.cat(vectors)[places.argsort()])


class PooledForImageClassification(ClassifiesImages, PooledPreTrainedModel):
    def __init__(self, config: PooledConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.pooled = PooledModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def load_encoder(self, source: str | Path) -> dict[str, Any]:
        """Take the encoder's weights from a folder or the Hub; returns what transformers says of them, by the names
        that they have here."""
        self.pooled.encoder, loading = transformers.AutoModel.from_pretrained(
            source, config=self.pooled.encoder.config, output_loading_info=True, use_safetensors=True
        )
        return under("pooled.encoder.", loading)


@contextmanager
def _batch_normalised(encoder: nn.Module, by_the_batch: bool) -> Iterator[None]:
    layers = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [layer.training for layer in layers]
    for layer, was_training in zip(layers, before, strict=True):
        layer.train(was_training and by_the_batch)
    try:
        yield
    finally:
        for layer, was_training in zip(layers, before, strict=True):
            layer.train(was_training)
