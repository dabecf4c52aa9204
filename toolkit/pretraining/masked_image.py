"""Most of an image hidden, to be guessed from the rest: batches for `transformers.ViTMAEForPreTraining`.

He, Chen, Xie, Li, Dollár & Girshick (2022), "Masked autoencoders are scalable vision learners",
https://arxiv.org/abs/2111.06377.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from toolkit.modalities.pixels import Changes, Pixels, stacked
from toolkit.training.batches import Draw, seed_of


@dataclass(frozen=True)
class CollateMasked:
    """Rows with `pixels`, `height` and `width` to a batch; `noise` (images, patches) says which patches are hidden."""

    processor: Any
    changes: Changes
    num_patches: int

    def __call__(self, rows: list[dict], draws: Sequence[Draw]) -> dict[str, Any]:
        noise = [
            np.random.default_rng((*seed_of(self.changes.seed, draw), 1)).random(self.num_patches, dtype=np.float32)
            for draw in draws
        ]
        return {
            "pixel_values": Pixels(self.processor).normalise(self.changes(stacked(rows), draws)),
            "noise": torch.from_numpy(np.stack(noise)),
            "num_targets": len(rows),
            "num_items": len(rows),
        }


def masked_autoencoder(config: transformers.ViTConfig, mask_ratio: float, decoder_layers: int):
    """A vision transformer of that configuration with new weights, and a decoder half as wide for its pretraining."""
    width = max(64, config.hidden_size // 2)
    kept = {name: getattr(config, name) for name in ENCODER_SIZES}
    return transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            **kept,
            mask_ratio=mask_ratio,
            norm_pix_loss=True,
            decoder_num_hidden_layers=decoder_layers,
            decoder_hidden_size=width,
            decoder_num_attention_heads=max(1, width // 64),
            decoder_intermediate_size=4 * width,
        )
    )


ENCODER_SIZES = (
    *("image_size", "patch_size", "num_channels"),
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
)


def without_decoder(model: transformers.ViTMAEForPreTraining) -> transformers.ViTModel:
    """Its encoder as a `ViTModel`, which sees all of an image and takes any head."""
    kept = {name: getattr(model.config, name) for name in (*ENCODER_SIZES, "hidden_act", "layer_norm_eps", "qkv_bias")}
    encoder = transformers.ViTModel(transformers.ViTConfig(**kept), add_pooling_layer=False)
    encoder.load_state_dict(model.vit.state_dict())
    return encoder
