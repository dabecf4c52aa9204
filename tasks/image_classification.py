"""Image classification: one label per image.

An example: a chest X-ray, label "pneumonia".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.classification import LabelPrediction
from tasks.media_classification import (
    DecisionArguments,
    LabelledMediaColumns,
    MediaArguments,
    MediaClassification,
    names_of_labels,
)
from tasks.task import check_label
from toolkit.data.columns import ImageColumn
from toolkit.errors import InputError
from toolkit.modalities.arguments import AugmentationArguments, ImageEncoderArguments
from toolkit.runs.arguments import defaults


@dataclass(kw_only=True)
class LabelledImageColumns(LabelledMediaColumns, ImageColumn):
    """Columns of labelled images."""


@dataclass(kw_only=True)
class ImageDecisionArguments(DecisionArguments):
    """decision"""

    flip_at_test: bool = False
    """Test-time augmentation: average the logits of an image and of its mirror image."""
    shift_at_test: bool = False
    """Test-time augmentation: average the logits of an image and of the image shifted up left and down right."""


@dataclass(kw_only=True)
class ImageArguments(MediaArguments):
    columns: LabelledImageColumns = defaults(LabelledImageColumns)
    options: ImageEncoderArguments = defaults(ImageEncoderArguments)
    augmentation: AugmentationArguments = defaults(AugmentationArguments)
    decision: ImageDecisionArguments = defaults(ImageDecisionArguments)

    def check(self) -> None:
        if self.options.keep_size and self.augmentation.image_size_start:
            raise InputError("--keep_size: does not go with --image_size_start")


class ImageClassification(MediaClassification):
    name = "image"
    modality_name = "image"
    arguments = ImageArguments
    auto_class = "AutoModelForImageClassification"
    item = "image"
    baseline_name = "logistic regression on pixels"

    def config_fields(self, arguments: ImageArguments) -> dict[str, Any]:
        return {name: getattr(arguments.decision, name) for name in ("flip_at_test", "shift_at_test")}

    def encode(self, rows, processor, model):
        from toolkit.modalities.pixels import check_smallest_image, encode_images

        encoded = encode_images(rows, processor, {name: i for i, name in enumerate(names_of_labels(model.config))})
        check_smallest_image(model, encoded, rows["name"])
        return encoded

    def lengths(self, encoded) -> list[int] | None:
        """The number of pixels of each image, if they differ."""
        sizes = [height * width for height, width in zip(encoded["height"][:], encoded["width"][:], strict=True)]
        return sizes if len(set(sizes)) > 1 else None

    def collate(self, encoded: list[dict], keys, processor, arguments: ImageArguments | None) -> dict[str, Any]:
        from toolkit.modalities.image_batches import CollateImages

        if arguments is None:
            return CollateImages(processor)(encoded, keys)
        return CollateImages.for_training(processor, arguments.augmentation, arguments.training.seed)(encoded, keys)

    def forward(self, model, inputs: dict[str, Any], while_training: bool = False):
        import torch

        from toolkit.modalities.augmentation import shift_image
        from toolkit.modalities.pixels import map_images

        views = [inputs["pixel_values"]]
        if getattr(model.config, "shift_at_test", False):
            views += [map_images(views[0], partial(shift_image, by=by)) for by in (-1, 1)]
        if getattr(model.config, "flip_at_test", False):
            views += [map_images(view, partial(torch.flip, dims=[-1])) for view in views]
        return sum(model(pixel_values=view).logits for view in views) / len(views)

    def explain(
        self, folder: str, item: str, label: str | None, layers: Sequence[str] | None, output_dir: Path
    ) -> tuple[str, list[Path]]:
        import torch

        from toolkit.data.image_decoding import open_image
        from toolkit.explain.pictures import write_explanation
        from toolkit.modalities.pixels import PixelProcessor, decoding_of

        model, processor = self.load_finetuned(folder)
        image = open_image({"bytes": None, "path": item}, item, decoding_of(processor))
        model.eval()
        reader = PixelProcessor(processor)
        shown = torch.from_numpy(np.array(reader.resize(image)))
        pixels = reader.normalize(shown[None])
        with torch.no_grad():
            (prediction,) = self.decode([{}], self.forward(model, {"pixel_values": pixels}), model, processor)
        probabilities = prediction.probabilities or {}
        explained = check_label(label or prediction.label, folder, list(probabilities))
        picture = shown.permute(1, 2, 0).numpy()
        found = (explained, list(probabilities).index(explained))
        files = write_explanation(model, picture, pixels, found, layers, output_dir)
        return f"{explained}\t{probabilities[explained]:.4f}\t{item}", files

    def baseline(self, train_rows, rows) -> list[LabelPrediction]:
        from tasks.baselines import pixel_labels

        return [LabelPrediction(*found) for found in pixel_labels(train_rows, rows)]
