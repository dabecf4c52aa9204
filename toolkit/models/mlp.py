"""A fully connected network on pixels: what an image classifier does that knows nothing of neighbourhoods.

Shape legend: B batch, C channels, S height and width.
"""

from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput


class MlpConfig(PreTrainedConfig):
    """Sizes of a fully connected network."""

    model_type = "toolkit-mlp"

    image_size: int = 32
    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (512, 512)
    hidden_dropout_prob: float = 0.2


class MlpPreTrainedModel(PreTrainedModel):
    config_class = MlpConfig
    base_model_prefix = "mlp"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)


class MlpModel(MlpPreTrainedModel):
    def __init__(self, config: MlpConfig):
        super().__init__(config)
        sizes = [config.num_channels * config.image_size**2, *config.hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """`pixel_values` (B, C, S, S) -> `pooler_output` (B, last hidden size)."""
        states = pixel_values.flatten(1)
        for layer in self.layers:
            states = self.dropout(layer(states).relu())
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=states)


class MlpForImageClassification(MlpPreTrainedModel):
    def __init__(self, config: MlpConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.mlp = MlpModel(config)
        self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels)
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs
    ) -> ImageClassifierOutput:
        """`pixel_values` (B, C, S, S), `labels` (B,) -> `logits` (B, num_labels), and `loss` with labels."""
        logits = self.classifier(self.mlp(pixel_values).pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(loss=loss, logits=logits)
