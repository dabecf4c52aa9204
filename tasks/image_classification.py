"""Image classification: one label per image.

An example: a chest X-ray, label "pneumonia".
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasks.classification import Classification, LabelPrediction
from tasks.task import FinetuneArguments, check_label
from toolkit.data.columns import ChosenLabels, ImageColumn, LabelColumn
from toolkit.data.image_files import select_labels
from toolkit.data.sources import Source
from toolkit.errors import InputError
from toolkit.modalities.arguments import AugmentationArguments, ImageEncoderArguments
from toolkit.runs.arguments import Arguments, defaults

FEATURE_BATCH_SIZE = 128


@dataclass(kw_only=True)
class LabelledImageColumns(ChosenLabels, LabelColumn, ImageColumn):
    """Columns of labelled images, and which labels are used."""


@dataclass(kw_only=True)
class ImageDecisionArguments(Arguments):
    """decision"""

    figure: Literal["accuracy", "roc_auc"] = "accuracy"
    """Figure by which checkpoints and learning rates are chosen on validation data, and encoders compared."""
    choose_threshold: bool = False
    """With two labels: predict the second one if its probability exceeds the threshold that is best on validation
    data."""
    flip_at_test: bool = False
    """Test-time augmentation: average the logits of an image and of its mirror image."""
    shift_at_test: bool = False
    """Test-time augmentation: average the logits of an image and of the image shifted up left and down right."""


@dataclass(kw_only=True)
class ImageArguments(FinetuneArguments):
    columns: LabelledImageColumns = defaults(LabelledImageColumns)
    options: ImageEncoderArguments = defaults(ImageEncoderArguments)
    augmentation: AugmentationArguments = defaults(AugmentationArguments)
    decision: ImageDecisionArguments = defaults(ImageDecisionArguments)

    def check(self) -> None:
        if self.options.keep_size and self.augmentation.image_size_start:
            raise InputError("--keep_size: does not go with --image_size_start")

    @property
    def metric(self) -> str:
        return self.decision.figure


class ImageClassification(Classification):
    name = "image"
    modality_name = "image"
    arguments = ImageArguments
    auto_class = "AutoModelForImageClassification"
    item = "image"
    baseline_name = "logistic regression on pixels"
    tunes_threshold = True

    def open(self, source: str, columns: LabelledImageColumns) -> Source:
        opened = super().open(source, columns)
        return opened if columns.labels is None else select_labels(opened, columns.labels)

    def config_fields(self, arguments: ImageArguments) -> dict[str, Any]:
        return {name: getattr(arguments.decision, name) for name in ("flip_at_test", "shift_at_test")}

    def load_model(self, arguments: ImageArguments, train_rows, **config_fields: Any) -> tuple[Any, Any]:
        from toolkit.modalities.image_batches import set_loss, weights_of_classes

        num_labels = len(config_fields["id2label"])
        if arguments.decision.choose_threshold and num_labels != 2:
            raise InputError(f"--choose_threshold: there are {num_labels} labels, expected two")
        model, processor = super().load_model(arguments, train_rows, **config_fields)
        weights = None
        if arguments.augmentation.class_weights:
            weights = weights_of_classes(Counter(train_rows["label"]), list(model.config.id2label.values()))
        set_loss(model, arguments.augmentation.label_smoothing, weights)
        return model, processor

    def encode(self, rows, processor, model):
        from toolkit.modalities.pixels import check_smallest_image, encode_images

        encoded = encode_images(rows, processor, {name: i for i, name in enumerate(_names_of_labels(model.config))})
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

    def fit_head(self, model, processor, encoded: dict[str, Any], is_scratch: bool) -> bool:
        from toolkit.training.evaluation import batches_in_order
        from toolkit.transfer.linear_probe import estimate_batch_norm, fit_head, head_inputs

        collate = partial(self.collate, processor=processor, arguments=None)
        batches = partial(batches_in_order, collate=collate, batch_size=FEATURE_BATCH_SIZE)
        train, validation = encoded["train"], encoded["validation"]
        if is_scratch:
            estimate_batch_norm(model, batches(train))
        features, held_out = head_inputs(model, batches(train)), head_inputs(model, batches(validation))
        fit_head(model, features, np.array(train["label"][:]), held_out, np.array(validation["label"][:]))
        return True

    def tune_threshold(self, model, rows, predictions, arguments: ImageArguments) -> bool:
        """Choose the threshold at which most validation images are right."""
        if not arguments.decision.choose_threshold:
            return False
        second = model.config.id2label[1]
        scores = np.array([prediction.probabilities[second] for prediction in predictions])
        is_second = np.array(rows["label"][:]) == second
        levels = np.unique(scores)
        candidates = np.array([levels[0] / 2, *((levels[1:] + levels[:-1]) / 2), (1 + levels[-1]) / 2])
        right = ((scores >= candidates[:, None]) == is_second).sum(axis=1)
        best = candidates[right == right.max()]
        model.config.threshold = float(best[np.abs(best - 0.5).argmin()])  # of several that do equally well
        return True

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

    def decode(self, encoded: list[dict], outputs: Any, model, processor) -> list[LabelPrediction]:
        names = _names_of_labels(model.config)
        threshold = getattr(model.config, "threshold", None)
        predictions = []
        for values in outputs.float().softmax(dim=-1).tolist():
            best = values.index(max(values)) if threshold is None else int(values[1] >= threshold)
            predictions.append(LabelPrediction(names[best], values[best], dict(zip(names, values, strict=True))))
        return predictions

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


def _names_of_labels(config) -> list[str]:
    """The names of all labels in the order of their ids, with the id where two have one name, as ImageNet's cranes."""
    names = [config.id2label[i] for i in range(config.num_labels)]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]
