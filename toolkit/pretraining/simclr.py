"""SimCLR: learn from images without labels, by telling two views of an image from all other images.

Chen, Kornblith, Norouzi & Hinton (2020), "A simple framework for contrastive learning of visual representations",
https://arxiv.org/abs/2002.05709.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import check_between_0_and_1, check_flags, check_positive
from toolkit.models.families import presets
from toolkit.pretraining.image_corpus import ImagePretrainingArguments, load_unlabelled, new_encoder, train_on_images
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run
from toolkit.runs.arguments import Arguments, defaults
from toolkit.training.arguments import TrainingArguments
from toolkit.training.sampler import SampleKey


@dataclass(kw_only=True)
class ContrastiveArguments(Arguments):
    """objective"""

    temperature: float = 0.5
    """Temperature of the similarities; the smaller, the more the most similar images count."""
    projection_size: int = 128
    """Size of the projections that are compared; the projection head is not kept."""
    smallest_part: float = 0.2
    """Smallest fraction of an image that a view shows."""
    color_strength: float = 0.5
    """Strength of the colour changes of a view, from 0 to 1."""

    def check(self) -> None:
        check_positive(self, "temperature projection_size")
        check_between_0_and_1(self, "smallest_part")
        check_flags(self, "color_strength", lambda value: 0 <= value <= 1, "a number from 0 to 1")


@dataclass(kw_only=True)
class SimCLRArguments(ImagePretrainingArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="resnet-fast")
    training: TrainingArguments = defaults(TrainingArguments, batch_size=256)
    contrastive: ContrastiveArguments = defaults(ContrastiveArguments)


def pretrain_simclr(arguments: SimCLRArguments) -> dict[str, Any]:
    """Train any image encoder on unlabelled images; returns the record."""
    import torch

    from toolkit.modalities.augmentation import ContrastiveViews
    from toolkit.models.simclr import SimCLRForPreTraining

    run = Run("simclr", arguments, presets("image"))
    rows, flags = load_unlabelled(run), arguments.contrastive
    encoder, processor = new_encoder(run, rows[0])
    size = arguments.options.image_size or run.preset.default_size
    example = {"pixel_values": torch.zeros(1, 3, size, size)}
    model = SimCLRForPreTraining.from_encoder(encoder, example, flags.projection_size, flags.temperature)
    views = ContrastiveViews(arguments.training.seed, flags.smallest_part, flags.color_strength)
    collate = CollateViews(processor, views)
    return train_on_images(run, model, processor, rows, collate, collate, export=lambda model: model.encoder)


@dataclass(frozen=True)
class CollateViews:
    """Collates encoded images to a batch of two views of each."""

    processor: Any
    views: Any  # ContrastiveViews

    def __call__(self, rows: list[dict], keys: Sequence[SampleKey]) -> dict[str, Any]:
        from toolkit.modalities.pixels import PixelProcessor, stack_pixels

        views = self.views(stack_pixels(rows), keys)
        pixel_values = PixelProcessor(self.processor).normalize(views)
        return {"pixel_values": pixel_values, "num_targets": len(views), "num_items": len(rows)}


METHOD = Method(SimCLRArguments, pretrain_simclr)
