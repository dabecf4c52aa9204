"""LeNet-5, the convolutional network that read cheques, with the paper's 60,000 parameters below its head.

LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document recognition",
http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf. As there, a unit of a subsampling layer adds up four pixels and
learns a factor and a bias, each map of the third layer sees some of the six before it (table I), activations are
1.7159 tanh(2x/3), and weights begin uniform between ±2.4 over the number of a unit's inputs. Unlike there, the head is
linear and learned, in the place of drawn digits.

Shape legend: B batch, C channels, S height and width, H hidden size.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

from .heads import ClassifiesImages

SMALLEST_IMAGE = 32  # pixels
SEEN_MAPS = (  # by each of sixteen maps, of six: three neighbours around the ring, four, two pairs, all
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class LeNetConfig(PreTrainedConfig):
    """LeNet-5 looks at 32 × 32 grey pixels; of larger images it takes the mean over all places."""

    model_type = "toolkit-lenet"

    image_size: int = SMALLEST_IMAGE
    hidden_size: int = 84


class Subsampling(nn.Module):
    """(B, C, S, S) -> (B, C, S/2, S/2)"""

    def __init__(self, num_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(num_channels, 1, 1))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return 4 * F.avg_pool2d(states, 2) * self.weight + self.bias


class PartialConvolution(nn.Module):
    """(B, 6, S, S) -> (B, 16, S - 4, S - 4): a kernel of 5 × 5 for each pair of maps that are connected."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(sum(map(len, SEEN_MAPS)), 5, 5))
        self.bias = nn.Parameter(torch.empty(len(SEEN_MAPS)))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        to = torch.tensor([i for i, seen in enumerate(SEEN_MAPS) for _ in seen], device=states.device)
        seen = torch.tensor([i for seen in SEEN_MAPS for i in seen], device=states.device)
        kernels = self.weight.new_zeros(len(SEEN_MAPS), states.shape[1], 5, 5).index_put((to, seen), self.weight)
        return F.conv2d(states, kernels, self.bias)


class LeNetPreTrainedModel(PreTrainedModel):
    config_class = LeNetConfig
    base_model_prefix = "lenet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Subsampling):
            inputs = 4.0
        elif isinstance(module, PartialConvolution):
            inputs = module.weight.numel() / len(SEEN_MAPS)  # the mean
        elif isinstance(module, nn.Conv2d | nn.Linear):
            inputs = module.weight[0].numel()
        else:
            return
        for parameter in module.parameters(recurse=False):
            init.uniform_(parameter, -2.4 / inputs, 2.4 / inputs)


class LeNetModel(LeNetPreTrainedModel):
    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(
            [nn.Conv2d(1, 6, 5), Subsampling(6), PartialConvolution(), Subsampling(16), nn.Conv2d(16, 120, 5)]
        )
        self.dense = nn.Linear(120, config.hidden_size)
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool = False, **kwargs
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """`pixel_values` (B, C, S, S), of which the mean over C is read -> `pooler_output` (B, H), and states after
        each layer of maps."""
        layers = [pixel_values.mean(dim=1, keepdim=True)]
        for layer in self.layers:
            layers.append(_squash(layer(layers[-1])))
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=layers[-1],
            pooler_output=_squash(self.dense(layers[-1].mean(dim=(2, 3)))),
            hidden_states=tuple(layers[1:]) if output_hidden_states else None,
        )


class LeNetForImageClassification(ClassifiesImages, LeNetPreTrainedModel):
    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.lenet = LeNetModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


def _squash(states: torch.Tensor) -> torch.Tensor:
    return 1.7159 * torch.tanh(states * 2 / 3)
