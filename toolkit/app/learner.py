"""What the page learns: a classifier of a project's examples on the features of an encoder, and how good it is."""

import math
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from toolkit.app.project import Example, Project, State, counted
from toolkit.data.audio_decoding import open_audio
from toolkit.data.media_files import as_file
from toolkit.errors import InputError
from toolkit.metrics.intervals import Interval
from toolkit.models.families import SCRATCH
from toolkit.transfer.cross_validation import CrossValidation, cross_validate, share_rejected
from toolkit.transfer.features import Featurizer, load_featurizer
from toolkit.transfer.few_shot_classifier import FewShotClassifier

MOST_KEPT = 50_000  # features
MOST_WORDS = 10_000  # of a vocabulary
MOST_HEARD = 100  # recordings whose amplitude is looked at
BATCH = 32  # examples between two reports of progress
FEW = 10  # examples of a class, below which the page says that they are few
UNEVEN = 4  # times as many examples in one class as in another


class Learned(NamedTuple):
    """A classifier, and what is known of it.

    Attributes:
        project: The project that it has learned, whose examples may have changed since.
        state: The classes and examples that it has learned.
        tested: The result of cross-validation; None if a class has one example.
        rejected: The share that it rejects of the examples of a class that it has not learned, each class in turn;
            None with fewer than three classes.
        confused: The examples that cross-validation classifies wrongly, their labels, and the labels predicted.
        warnings: What to be careful about, in plain sentences.
        seconds: The time that it took.
        quietest: The largest amplitude of the quietest recording; 0 of other examples.
    """

    project: Project
    state: State
    classifier: FewShotClassifier
    tested: CrossValidation | None
    rejected: float | None
    confused: list[tuple[Example, str, str]]
    warnings: list[str]
    seconds: float
    quietest: float

    @property
    def items(self) -> list[Any]:
        """The examples as the modality takes them."""
        return self.project.items(self.state)


class Learner:
    """An encoder, and the features of the examples that it has read, which all visitors of the page share.

    Args:
        encoder: Folder, Hub id or `scratch:` name.
        modality_name: What the examples are: `image`, `audio` or `text`.

    Raises:
        InputError: The encoder cannot be loaded, or does not read such examples.
    """

    def __init__(self, encoder: str, modality_name: str):
        self.encoder = encoder
        self.featurizer = _Remembering(load_featurizer(encoder, modality_name=modality_name))

    @property
    def modality(self) -> Any:
        return self.featurizer.modality

    @cached_property
    def vocabulary(self) -> Any:
        """The vectors of the first words of the vocabulary of a text encoder, gensim `KeyedVectors`."""
        from toolkit.transfer.word_vectors import TOP_LAYER, whole_words, word_vectors

        words = whole_words(self.encoder.removeprefix(SCRATCH), self.featurizer.processor)[:MOST_WORDS]
        return word_vectors(self.featurizer.model, self.featurizer.processor, words, TOP_LAYER)

    def learn(self, project: Project, say: Callable[[float, str], Any]) -> Iterator[Learned]:
        """Learn the project's examples: by prototypes at once, then with a linear layer.

        `say` is called with the share of the work that is done and with what is done next. Raises `InputError` if
        there are fewer than two classes with examples.
        """
        start = time.perf_counter()
        state = project.state  # a visitor may go on adding examples
        labels, groups = state.labels(), groups_of(state)
        check_enough(state)
        items = project.items(state)
        for first in range(0, len(items), BATCH):
            say(0.8 * first / len(items), f"reading {counted(len(items), 'example')}")
            self.featurizer.remember(items[first : first + BATCH])
        features = self.featurizer(items)
        quietest = _quietest(items) if self.modality.name == "audio" else 0.0
        for method, share in (("prototype", 0.8), ("linear", 0.9)):
            say(share, "averaging classes" if method == "prototype" else "fitting a linear layer")
            classifier = FewShotClassifier(self.featurizer, method=method, modality_name=self.modality.name)
            classifier.fit(items, labels)
            tested, rejected, confused = None, None, []
            if min(_num_groups(labels, groups).values()) > 1:
                tested = cross_validate(classifier, features, labels, groups)
                classifier.threshold_, classifier.reject = tested.threshold(), True
                rejected = share_rejected(classifier, features, labels, classifier.threshold_)
                found = zip(state.examples, labels, tested.predicted.tolist(), strict=True)
                confused = [each for each in found if each[1] != each[2]]
            warnings, seconds = warnings_of(state, tested), time.perf_counter() - start
            yield Learned(project, state, classifier, tested, rejected, confused, warnings, seconds, quietest)


class _Remembering(Featurizer):
    """A featurizer that remembers the features of texts and of files of projects, which never change."""

    def __init__(self, featurizer: Featurizer):
        vars(self).update(vars(featurizer))
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, items: Sequence[Any]) -> np.ndarray:
        with self._lock:
            if all(isinstance(item, str) and item in self._kept for item in items):
                return np.stack([self._kept[item] for item in items])
            return super().__call__(items)

    def remember(self, items: Sequence[str]) -> None:
        """Read texts or files, and remember their features."""
        with self._lock:
            if new := [item for item in dict.fromkeys(items) if item not in self._kept]:
                self._kept.update(zip(new, super().__call__(new), strict=True))
            for item in items:
                self._kept.move_to_end(item)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)

    def forget(self) -> None:
        """Forget everything, such as the texts of a visitor who deletes them; what is needed is read again."""
        with self._lock:
            self._kept.clear()

    def adapt(self, items: Sequence[Any]) -> None:
        """Nothing: what one visitor shows must not change what the encoder makes of another one's examples."""


def _quietest(items: Sequence[str]) -> float:
    """The smallest of the largest amplitudes of recordings, of some if there are many."""
    some = items[:: 1 + len(items) // MOST_HEARD]
    return min(float(np.abs(open_audio(as_file(item), item)).max()) for item in some)


def check_enough(state: State) -> None:
    """Raises `InputError` unless there are two classes, all with examples, and no example is in two of them."""
    if len(state.classes) < 2:
        raise InputError("add a second class: a classifier chooses between classes")
    counts = counts_of(state)
    if empty := [name for name, count in counts.items() if count == 0]:
        raise InputError(f"no example yet of {_some(empty)}: add some, or remove the class")
    label_of: dict[str, str] = {}
    for example, label in zip(state.examples, state.labels(), strict=True):
        if (other := label_of.setdefault(example.digest, label)) != label:
            raise InputError(f"{example.name}: is in {other} and in {label}; remove it from one of them")


def counts_of(state: State) -> dict[str, int]:
    """The number of examples of each class, by name."""
    counts = {each.name: 0 for each in state.classes}
    for label in state.labels():
        counts[label] += 1
    return counts


def groups_of(state: State) -> list[str]:
    """What identifies examples that are alike, which cross-validation keeps together: equal ones, and the pictures of
    one recording of a camera, unless that is all that their class has."""
    labels, groups = state.labels(), state.groups()
    counts = _num_groups(labels, groups)
    return [
        group if counts[label] > 1 else example.digest
        for example, label, group in zip(state.examples, labels, groups, strict=True)
    ]


def warnings_of(state: State, tested: CrossValidation | None) -> list[str]:
    """What to be careful about, in plain sentences."""
    labels, counts, found = state.labels(), counts_of(state), []
    distinct, groups = _num_groups(labels, groups_of(state)), _num_groups(labels, state.groups())
    if single := [label for label, count in distinct.items() if count == 1]:
        found.append(
            f"Only one distinct example of {_some(single)}. How well it is recognized is not known, and nothing is "
            "rejected: add a second example."
        )
    alike = [label for label, count in groups.items() if count == 1 < distinct[label]]
    if tested is not None and alike:
        found.append(
            f"All examples of {_some(alike)} are from one recording of the camera, so they are alike, and the "
            "accuracy below says little about other light, places and days: record a second time."
        )
    if tested is not None and min(distinct.values()) < FEW:
        found.append(
            f"Some classes have fewer than {FEW} different examples. The accuracy for new examples may be anything "
            f"from {range_of(tested.accuracy)}, and lower if they are of another kind: other light, another voice, "
            "other words."
        )
    if max(counts.values()) > UNEVEN * min(counts.values()):
        most, least = (choose(counts, key=counts.__getitem__) for choose in (max, min))
        found.append(
            f"{most} has {counts[most]:,} examples, {least} has {counts[least]:,}. The classifier will say {most} too "
            "often: add examples of the other classes."
        )
    return found


def range_of(accuracy: Interval) -> str:
    """The interval of an accuracy, rounded outwards."""
    return f"{math.floor(100 * accuracy['low'])}% to {math.ceil(100 * accuracy['high'])}%"


def _some(labels: Sequence[str]) -> str:
    """The first of some labels."""
    others = len(labels) - 1
    return labels[0] + (f" and {counted(others, 'other class', 'other classes')}" if others else "")


def _num_groups(labels: Sequence[str], groups: Sequence[str]) -> dict[str, int]:
    """The number of different groups of each label."""
    of_label: defaultdict[str, set[str]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        of_label[label].add(group)
    return {label: len(found) for label, found in of_label.items()}
