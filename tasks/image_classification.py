"""Image classification: one label an image.

An example: a chest X-ray, label "pneumonia". The figures are accuracy, F1 of each label and their mean, and the area
under the ROC curve, of more than two labels the mean of each against all others.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tasks.base import PREDICTION_BATCH_SIZE, Collate, FinetuneArguments, Task
from toolkit.errors import InputError
from toolkit.pretraining.arguments import ImageArguments

PICTURE_SIZE = 96  # pixels of an image in a report, at most


@dataclass(kw_only=True)
class ImageTaskArguments(ImageArguments, FinetuneArguments):
    choose_threshold: bool = False
    """Of two labels, take the second where its probability is above what does best on validation data."""
    figure: Literal["accuracy", "roc_auc"] = "accuracy"
    """By which checkpoints and learning rates are chosen on validation data, and encoders compared."""
    flip_at_test: bool = False
    """Average what the model says of an image and of its mirror image."""
    shift_at_test: bool = False
    """Average what the model says of an image as it is, moved a little up and left, and moved down and right."""

    def __post_init__(self):
        FinetuneArguments.__post_init__(self)
        ImageArguments.__post_init__(self)


class ImageClassification(Task):
    name = "image"
    arguments_class = ImageTaskArguments
    data_flags = ("image_column", "label_column", "labels", "skip_broken")
    model_class = "AutoModelForImageClassification"
    item = "image"
    baseline_name = "logistic regression on pixels"

    def load(self, source: str, split: str | None, flags: dict[str, Any]):
        from toolkit.data.image_files import load_labelled_images, without_broken

        columns = flags.get("image_column"), flags.get("label_column")
        rows = load_labelled_images(source, split, *columns, flags.get("labels"))
        return (
            without_broken(rows, lambda message: print(message, file=sys.stderr)) if flags.get("skip_broken") else rows
        )

    def splits(self, source: str) -> list[str]:
        from toolkit.data.image_files import splits_of_labelled_images

        return splits_of_labelled_images(source)

    def labels(self, rows) -> list[str]:
        return sorted(set(rows["label"]))

    def labels_of_rows(self, rows) -> list[str]:
        return rows["label"][:]

    def config_fields(self, arguments: ImageTaskArguments) -> dict[str, Any]:
        return {"flip_at_test": arguments.flip_at_test, "shift_at_test": arguments.shift_at_test}

    def load_encoder(self, arguments: ImageTaskArguments, train_rows, **config_fields: Any) -> tuple[Any, Any]:
        from collections import Counter

        from toolkit.pretraining.supervised import set_loss, weights_of
        from toolkit.transfer.encoders import load_image_encoder

        num_labels = len(config_fields["id2label"])
        if arguments.choose_threshold and num_labels != 2:
            raise InputError(f"--choose_threshold: there are {num_labels} labels, expected two")
        model, processor = load_image_encoder(
            arguments.encoder,
            self.model_class,
            arguments.image_size,
            train_rows,
            arguments.pooling,
            arguments.keep_size,
            **config_fields,
        )
        weights = None
        if arguments.class_weights:
            weights = weights_of(Counter(train_rows["label"]), list(model.config.id2label.values()))
        set_loss(model, arguments.label_smoothing, weights)
        return model, processor

    def load_finetuned(self, folder: str) -> tuple[Any, Any]:
        from toolkit.transfer.encoders import load_image_encoder

        return load_image_encoder(folder, self.model_class)

    def encode(self, rows, processor, model):
        from toolkit.modalities.pixels import check_smallest, rows_of_pixels

        features = rows_of_pixels(rows, processor, model.config.label2id)
        check_smallest(model, features, rows["name"])
        return features

    def lengths(self, features) -> list[int] | None:
        """The pixels of each image, where they differ."""
        pixels = [height * width for height, width in zip(features["height"][:], features["width"][:], strict=True)]
        return pixels if len(set(pixels)) > 1 else None

    def collate(self, rows: list[dict], draws, processor, arguments: ImageTaskArguments | None) -> dict[str, Any]:
        from toolkit.pretraining.supervised import CollateImages

        collate = CollateImages(processor) if arguments is None else CollateImages.to_train(processor, arguments)
        return collate(rows, draws)

    def fit_head(self, model, processor, features, is_new: bool) -> bool:
        import numpy as np

        from toolkit.training.batches import Draw, load_batches
        from toolkit.transfer.linear_probe import fit_head, head_inputs, normalise_by

        def batches(rows):
            starts = range(0, len(rows), PREDICTION_BATCH_SIZE)
            draws = ([Draw(0, 0, i) for i in range(s, min(s + PREDICTION_BATCH_SIZE, len(rows)))] for s in starts)
            return load_batches(rows, draws, Collate(self, processor))

        if is_new:
            normalise_by(model, batches(features["train"]))
        found = []
        for split in ("train", "validation"):
            rows = features[split]
            found += [head_inputs(model, batches(rows)), np.array(rows["label"][:])]
        fit_head(model, *found)
        return True

    def settle(self, model, rows, predictions, arguments: ImageTaskArguments) -> bool:
        """Choose the threshold at which most validation images are right."""
        import numpy as np

        if not arguments.choose_threshold:
            return False
        second = model.config.id2label[1]
        scores = np.array([probabilities[second] for _, probabilities in predictions])
        is_second = np.array(rows["label"][:]) == second
        levels = np.unique(scores)
        candidates = np.array([levels[0] / 2, *((levels[1:] + levels[:-1]) / 2), (1 + levels[-1]) / 2])
        right = ((scores >= candidates[:, None]) == is_second).sum(axis=1)
        best = candidates[right == right.max()]
        model.config.threshold = float(best[np.abs(best - 0.5).argmin()])  # of several that do as well
        return True

    def logits(self, model, inputs: dict[str, Any]):
        import torch

        from toolkit.modalities.pixels import each, shifted

        views = [inputs["pixel_values"]]
        if getattr(model.config, "shift_at_test", False):
            views += [each(views[0], partial(shifted, by=by)) for by in (-1, 1)]
        if getattr(model.config, "flip_at_test", False):
            views += [each(view, partial(torch.flip, dims=[-1])) for view in views]
        return sum(model(pixel_values=view).logits for view in views) / len(views)

    def read(self, features: list[dict], logits, model) -> list[tuple[str, dict[str, float]]]:
        """For each image its label, and the probability of every label."""
        names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        threshold = getattr(model.config, "threshold", None)
        predictions = []
        for values in logits.float().softmax(dim=-1).tolist():
            probabilities = dict(zip(names, values, strict=True))
            label = max(names, key=lambda name: probabilities[name])
            if threshold is not None:
                label = names[values[1] >= threshold]
            predictions.append((label, probabilities))
        return predictions

    def join(self, predictions: list[tuple[str, dict[str, float]]]) -> tuple[str, dict[str, float]]:
        (prediction,) = predictions
        return prediction

    def score(self, rows, predictions, seen: set[str] | None) -> dict[str, dict[str, float]]:
        from toolkit.metrics.intervals import mean_auc_interval
        from toolkit.metrics.scores import label_scores

        right, predicted = self.answers(rows, predictions)
        figures = label_scores(predicted, right)
        scored = _scored([probabilities for _, probabilities in predictions], right)
        return figures | ({"roc_auc": mean_auc_interval(scored)} if scored else {})

    def figure(self, arguments: FinetuneArguments) -> str:
        assert isinstance(arguments, ImageTaskArguments)
        return arguments.figure

    def measure(self, figure: str, runs: list[list[dict]], others: list[list[dict]] | None = None) -> dict[str, float]:
        from toolkit.metrics.intervals import mean_auc_difference, mean_auc_interval

        if figure != "roc_auc":
            return super().measure(figure, runs, others)
        scored, other_scored = (
            [
                each
                for lines in of_runs
                for each in _scored([line["probabilities"] for line in lines], [line["label"] for line in lines])
            ]
            for of_runs in (runs, others or [])
        )
        if not scored:
            raise InputError(f"--figure {figure}: not defined on the test data, which has one label only")
        return mean_auc_interval(scored) if others is None else mean_auc_difference(scored, other_scored)

    def answers(self, rows, predictions) -> tuple[list[str], list[str]]:
        return rows["label"][:], [label for label, _ in predictions]

    def baseline(self, train_rows, rows) -> list[tuple[str, dict[str, float]]]:
        from tasks.baselines import pixel_labels

        return pixel_labels(train_rows, rows)

    def unlabelled(self, inputs: Sequence[str | Path]):
        from toolkit.data.image_files import load_images

        for found in inputs:
            if isinstance(found, str):
                raise InputError(f"{found}: no such file, expected images")
        return load_images(inputs)

    def as_json(self, row: dict, prediction: tuple[str, dict[str, float]]) -> dict:
        label, probabilities = prediction
        line = {"image": row["name"], "predicted": label}
        line |= {"probabilities": {name: round(value, 8) for name, value in probabilities.items()}}
        return {**line, "label": row["label"]} if "label" in row else line

    def pictures(self, load_rows: Callable, indices: Sequence[int]) -> dict[int, str]:
        import base64
        import io

        from toolkit.data.image_files import open_image

        rows, pictures = load_rows(), {}
        for index in indices:
            image, file = open_image(rows[index]["image"], rows[index]["name"]), io.BytesIO()
            image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
            image.save(file, "PNG")
            pictures[index] = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        return pictures

    def hits(self, line: dict) -> tuple[int, int]:
        return int(line["predicted"] == line["label"]), 1

    def as_text(self, row: dict, prediction: tuple[str, dict[str, float]]) -> str:
        label, probabilities = prediction
        return f"{label}\t{probabilities[label]:.4f}\t{row['name']}"


def _scored(probabilities: list[dict[str, float]], right: list[str]) -> list[tuple[list[float], list[bool]]]:
    """For each label that some examples have and others do not, of two labels the second alone: its probability for
    each example, and whether it is right."""
    names = list(probabilities[0])
    present = [name for name in (names[1:] if len(names) == 2 else names) if 0 < right.count(name) < len(right)]
    return [([each[name] for each in probabilities], [label == name for label in right]) for name in present]
