"""What classification of images and of recordings shares: columns, groups, the loss, a threshold, a linear probe."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from tasks.classification import Classification, LabelPrediction
from tasks.task import FinetuneArguments
from toolkit.data.columns import ChosenLabels, GroupColumn, LabelColumn
from toolkit.data.groups import keep_apart
from toolkit.data.media_files import select_labels
from toolkit.data.sources import Source
from toolkit.errors import InputError
from toolkit.modalities.arguments import LossArguments
from toolkit.runs.arguments import Arguments, defaults

FEATURE_BATCH_SIZE = 128


@dataclass(kw_only=True)
class LabelledMediaColumns(ChosenLabels, GroupColumn, LabelColumn):
    """Columns of labels and groups, and which of them are used; a task adds the column of the items."""


@dataclass(kw_only=True)
class DecisionArguments(Arguments):
    """decision"""

    figure: Literal["accuracy", "roc_auc"] = "accuracy"
    """Figure by which checkpoints and learning rates are chosen on validation data, and encoders compared."""
    choose_threshold: bool = False
    """With two labels: predict the second one if its probability exceeds the threshold that is best on validation
    data."""


@dataclass(kw_only=True)
class MediaArguments(FinetuneArguments):
    """A task has subclasses of these groups."""

    columns: LabelledMediaColumns = defaults(LabelledMediaColumns)
    augmentation: LossArguments = defaults(LossArguments)
    decision: DecisionArguments = defaults(DecisionArguments)

    @property
    def metric(self) -> str:
        return self.decision.figure


class MediaClassification(Classification):
    """One label per image or recording."""

    tunes_threshold = True

    def open(self, source: str, columns: Any) -> Source:
        opened = self.modality.open_labelled(source, columns, columns.label_column, columns.group_column)
        if columns.labels is not None:
            opened = select_labels(opened, columns.labels)
        if columns.group_column is not None:
            opened = keep_apart(opened, columns.group_column, columns.test_groups)
        return opened

    def load_model(self, arguments: Any, train_rows, **config_fields: Any) -> tuple[Any, Any]:
        from toolkit.modalities.losses import set_loss, weights_of_classes

        num_labels = len(config_fields["id2label"])
        if arguments.decision.choose_threshold and num_labels != 2:
            raise InputError(f"--choose_threshold: there are {num_labels} labels, expected two")
        model, processor = super().load_model(arguments, train_rows, **config_fields)
        weights = None
        if arguments.augmentation.class_weights:
            weights = weights_of_classes(Counter(train_rows["label"]), list(model.config.id2label.values()))
        set_loss(model, arguments.augmentation.label_smoothing, weights)
        return model, processor

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

    def tune_threshold(self, model, rows, predictions: list[Any], arguments: Any) -> bool:
        """Choose the threshold at which most validation examples are right."""
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

    def decode(self, encoded: list[dict], outputs: Any, model, processor) -> list[LabelPrediction]:
        names, threshold = names_of_labels(model.config), getattr(model.config, "threshold", None)
        rows = outputs.float().softmax(dim=-1).tolist()
        return [predicted(dict(zip(names, row, strict=True)), threshold) for row in rows]


def predicted(probabilities: dict[str, float], threshold: float | None = None) -> LabelPrediction:
    """The most probable label, or with a threshold the second one if its probability is as large."""
    names = list(probabilities)
    if threshold is None:
        best = max(names, key=probabilities.__getitem__)
    else:
        best = names[int(probabilities[names[1]] >= threshold)]
    return LabelPrediction(best, probabilities[best], probabilities, threshold)


def names_of_labels(config) -> Sequence[str]:
    """The names of all labels in the order of their ids, with the id where two have one name, as ImageNet's cranes."""
    names = [config.id2label[i] for i in range(config.num_labels)]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]
