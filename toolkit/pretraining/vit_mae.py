"""Masked autoencoder: predict hidden patches of an image from the visible ones.

He, Chen, Xie, Li, Dollár & Girshick (2022), "Masked autoencoders are scalable vision learners",
https://arxiv.org/abs/2111.06377.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import check_between_0_and_1, check_positive
from toolkit.models.families import presets
from toolkit.pretraining.image_corpus import ImagePretrainingArguments, load_unlabelled, some_images, train_on_images
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run
from toolkit.runs.arguments import Arguments, defaults
from toolkit.training.sampler import SampleKey

ENCODER_SIZES = (
    *("image_size", "patch_size", "num_channels"),
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
)


@dataclass(kw_only=True)
class MaskedImageArguments(Arguments):
    """objective"""

    mask_ratio: float = 0.75
    """Fraction of patches that are hidden and predicted from the rest."""
    decoder_layers: int = 2
    """Layers of the decoder, which is half as wide as the encoder and is not kept."""

    def check(self) -> None:
        check_between_0_and_1(self, "mask_ratio")
        check_positive(self, "decoder_layers")


@dataclass(kw_only=True)
class ViTMAEArguments(ImagePretrainingArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="vit-mini")
    masking: MaskedImageArguments = defaults(MaskedImageArguments)


def pretrain_vit_mae(arguments: ViTMAEArguments) -> dict[str, Any]:
    """Train a vision transformer on unlabelled images; returns the record."""
    import torch

    from toolkit.modalities.augmentation import Augmentation
    from toolkit.modalities.pixels import new_image_processor

    run, seed = Run("vit-mae", arguments, presets(family="vit")), arguments.training.seed
    rows = load_unlabelled(run)
    size = arguments.options.image_size or run.preset.default_size
    processor = new_image_processor(size, some_images(rows[0], run))
    torch.manual_seed(seed)
    model = masked_autoencoder(run.preset.config(size), arguments.masking.mask_ratio, arguments.masking.decoder_layers)
    num_patches = model.vit.embeddings.patch_embeddings.num_patches
    collate, exact = (
        CollateMasked(processor, Augmentation(names, seed), num_patches) for names in (("flip", "shift"), ())
    )
    return train_on_images(run, model, processor, rows, collate, exact, export=without_decoder)


@dataclass(frozen=True)
class CollateMasked:
    """Collates encoded images; `noise` (images, patches) determines which patches are hidden."""

    processor: Any
    augmentation: Any  # Augmentation
    num_patches: int

    def __call__(self, rows: list[dict], keys: Sequence[SampleKey]) -> dict[str, Any]:
        import torch

        from toolkit.modalities.pixels import PixelProcessor, stack_pixels

        noise = [
            np.random.default_rng((*key.seed(self.augmentation.seed), 1)).random(self.num_patches, dtype=np.float32)
            for key in keys
        ]
        pixels = self.augmentation(stack_pixels(rows), keys)
        return {
            "pixel_values": PixelProcessor(self.processor).normalize(pixels),
            "noise": torch.from_numpy(np.stack(noise)),
            "num_targets": len(rows),
            "num_items": len(rows),
        }


def masked_autoencoder(config, mask_ratio: float, decoder_layers: int):
    """A `ViTMAEForPreTraining` with random weights: the `ViTConfig` and a decoder half as wide as the encoder."""
    import transformers

    width = max(64, config.hidden_size // 2)
    return transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            **{name: getattr(config, name) for name in ENCODER_SIZES},
            mask_ratio=mask_ratio,
            norm_pix_loss=True,
            decoder_num_hidden_layers=decoder_layers,
            decoder_hidden_size=width,
            decoder_num_attention_heads=max(1, width // 64),
            decoder_intermediate_size=4 * width,
        )
    )


def without_decoder(model):
    """The encoder of a `ViTMAEForPreTraining` as a `ViTModel`, which sees whole images and takes any head."""
    import transformers

    kept = {name: getattr(model.config, name) for name in (*ENCODER_SIZES, "hidden_act", "layer_norm_eps", "qkv_bias")}
    encoder = transformers.ViTModel(transformers.ViTConfig(**kept), add_pooling_layer=False)
    encoder.load_state_dict(model.vit.state_dict())
    return encoder


METHOD = Method(ViTMAEArguments, pretrain_vit_mae)
