"""Few-shot classification: a handful of labelled examples of each class, of any modality.

There are three protocols. The first samples many small problems (episodes) from classes that pretraining never saw
(Vinyals et al. 2016, https://arxiv.org/abs/1606.04080); the encoder runs once over all examples. The second learns
from a few labelled examples of every class and classifies the whole test set, with several seeds (Tunstall et al.
2022, https://arxiv.org/abs/2209.11055). The third cross-validates on all labelled examples.
"""

import statistics
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tasks.examples import (
    ExampleClassifierArguments,
    ExampleColumns,
    Examples,
    InputArguments,
    OptionalExamples,
    OptionalOutput,
    describe_labels,
    load_examples,
    load_test_and_train,
    load_unlabelled,
    open_examples,
    write_evaluation,
    write_record,
)
from toolkit.data.sources import SAMPLE, Source
from toolkit.errors import InputError, check_flags, check_not_negative, check_positive
from toolkit.hub.arguments import HubArguments
from toolkit.metrics.intervals import ratio_interval
from toolkit.modalities import Modality
from toolkit.runs.arguments import Arguments, defaults, without
from toolkit.runs.output import OutputArguments, check_output_dir, create_output_dir
from toolkit.runs.results import Stopwatch
from toolkit.transfer.encoders import modality_of_encoder


@dataclass(kw_only=True)
class ClassifierArguments(Arguments):
    """classifier"""

    shots: int | None = None
    """Labelled examples of each class; fit and predict use all by default."""
    method: Literal["prototype", "nearest", "linear", "lp-ft", "contrastive"] = "prototype"
    """prototype: the mean of a class's examples; nearest: its nearest example; linear: logistic regression; lp-ft and
    contrastive: logistic regression after fine-tuning the encoder on the examples."""
    metric: Literal["cosine", "euclidean", "sqeuclidean"] = "cosine"
    """Similarity of an item to a class, for prototype and nearest."""
    descriptions: str | None = None
    """A text per label that counts as one more example of it: a table with the columns label and description, or
    'names', the labels themselves with underscores read as spaces."""
    rounds: int = 0
    """Rounds of self-training: the --unlabelled items with the most confident predictions become examples."""
    max_steps: int = 40
    """Steps of fine-tuning."""
    learning_rate: float | None = None
    """Peak learning rate of fine-tuning (default: 2e-2 for static word vectors, else 5e-5)."""

    def check(self) -> None:
        check_positive(self, "shots max_steps learning_rate")
        check_not_negative(self, "rounds")

    @property
    def num_steps(self) -> int:
        """Steps for which the encoder is fine-tuned; 0 if the method does not change it."""
        return self.max_steps if self.method in ("lp-ft", "contrastive") else 0


@dataclass(kw_only=True)
class FewShotArguments(ExampleClassifierArguments):
    classifier: ClassifierArguments = defaults(ClassifierArguments)


@dataclass(kw_only=True)
class ProtocolArguments(Arguments):
    """protocol"""

    ways: int = 5
    """Classes per episode."""
    queries: int = 15
    """Examples of each class of an episode that are classified (query set)."""
    episodes: int = 1000
    """Number of episodes."""
    within: str | None = None
    """Column of a table: the examples of an episode have the same value in it, such as the alphabet or the speaker."""
    groups: list[str] = field(default_factory=list)
    """Values of --within to use, such as speakers that pretraining never heard (default: all)."""
    labels: list[str] = field(default_factory=list)
    """Use these labels only, such as those that pretraining never saw (default: all)."""
    seeds: int | None = None
    """Instead of episodes: learn from --shots examples of every class of the training split and classify the whole
    test split, with this many seeds."""
    folds: int | None = None
    """Instead of episodes: cross-validate on all examples of the split, in this many parts."""

    def check(self) -> None:
        check_positive(self, "ways queries episodes seeds")
        check_flags(self, "folds", lambda folds: folds > 1, "two or more")
        if self.folds is not None and self.seeds is not None:
            raise InputError(f"--folds {self.folds}: goes without --seeds")
        if self.groups and self.within is None:
            raise InputError(f"--groups {' '.join(self.groups)}: goes with --within")
        if len(self.labels) == 1:
            raise InputError(f"--labels {self.labels[0]}: expected two labels or more")
        if self.ways < 2:
            raise InputError(f"--ways {self.ways}: expected two classes or more")


@dataclass(kw_only=True)
class EvaluateFewShotArguments(FewShotArguments):
    classifier: ClassifierArguments = defaults(ClassifierArguments, shots=5)
    protocol: ProtocolArguments = defaults(ProtocolArguments)
    output: OptionalOutput = defaults(OptionalOutput)


@dataclass(kw_only=True)
class CalibrationArguments(Arguments):
    """rejection"""

    calibration_data: str | None = None
    """Labelled data of other classes, from which a rejection threshold is learned; without it every item is assigned
    to a class."""


@dataclass(kw_only=True)
class FitFewShotArguments(FewShotArguments):
    output: OutputArguments
    calibration: CalibrationArguments = defaults(CalibrationArguments)
    hub: HubArguments = defaults(HubArguments)


@dataclass(kw_only=True)
class AddedExamples(Arguments):
    """data"""

    classifier: str
    """Folder or Hub id of a few-shot classifier, which stays as it is."""
    data: str
    """Labelled examples of new classes: a file, a folder with one folder per class, or a Hub id."""
    split: str | None = None
    """Split of a folder or Hub data set (default: train)."""


@dataclass(kw_only=True)
class AddFewShotArguments(Arguments):
    examples: AddedExamples
    output: OutputArguments
    columns: ExampleColumns = defaults(ExampleColumns)  # type: ignore[valid-type]
    hub: HubArguments = defaults(HubArguments)


@dataclass(kw_only=True)
class PredictFewShotArguments(FewShotArguments):
    examples: OptionalExamples = without()
    input: InputArguments = defaults(InputArguments)


def evaluate(arguments: EvaluateFewShotArguments) -> dict[str, Any]:
    """Measure few-shot classification by one of the protocols; returns the record. Raises `InputError`."""
    protocol, measure = arguments.protocol, _evaluate_episodes
    if protocol.seeds is not None:
        measure = _evaluate_seeds
    elif protocol.folds is not None:
        measure = _evaluate_folds
    return write_evaluation("few-shot", arguments, measure)


def fit(arguments: FitFewShotArguments) -> dict[str, Any]:
    """Fit a `FewShotClassifier` and save it to the output folder; returns the record. Raises `InputError`."""
    check_output_dir(arguments.output)
    stopwatch = Stopwatch()
    classifier, num_examples, data = fit_classifier(arguments)
    modality, flags = classifier.modality, arguments.examples
    if (source := arguments.calibration.calibration_data) is not None:
        others = _load_to_learn(modality, source, arguments)[0]
        classifier.calibrate(others.items, others.labels).set_params(reject=True)
    return _save(
        classifier,
        arguments,
        stopwatch,
        split=flags.split or "train",
        n=num_examples,
        num_steps=arguments.classifier.num_steps,
        data=data,
        **({"sample_license": modality.labelled_sample_license} if flags.data == SAMPLE else {}),
    )


def add(arguments: AddFewShotArguments) -> dict[str, Any]:
    """Add classes to a `FewShotClassifier` and save it to another folder; returns the record. Raises `InputError`."""
    from toolkit.transfer.few_shot_classifier import FewShotClassifier

    check_output_dir(arguments.output)
    stopwatch, given = Stopwatch(), arguments.examples
    classifier = FewShotClassifier.from_pretrained(given.classifier)
    modality = classifier.modality
    if modality is None:
        raise InputError(f"{given.classifier}: a classifier of features, without an encoder that reads examples")
    source = open_examples(modality, given.data, arguments.columns)
    examples = load_examples(modality, source, given.split)
    source.summary.say()
    for label in sorted(set(examples.labels)):
        classifier.add_class(label, examples.with_labels([label]).items)
    return _save(
        classifier,
        arguments,
        stopwatch,
        encoder=given.classifier,
        seed=classifier.random_state,
        split=given.split or "train",
        n=len(examples.labels),
        data=source.summary.as_json(),
    )


def _save(classifier: Any, arguments: Any, stopwatch: Stopwatch, **fields: Any) -> dict[str, Any]:
    """Save a classifier and its record to the output folder, and push it if asked to; returns the record."""
    from toolkit.hub.upload import push_run

    folder = create_output_dir(arguments.output)
    classifier.save(folder)
    record = write_record(
        "few-shot",
        arguments,
        stopwatch,
        folder,
        modality=classifier.modality.name,
        classes=len(classifier.classes_),
        threshold=classifier.threshold_,
        metrics={},
        parameters=classifier.num_parameters,
        **fields,
    )
    push_run(arguments.output.output_dir, arguments.hub.push_to_hub)
    return record


def fit_classifier(arguments: FitFewShotArguments | PredictFewShotArguments):
    """A `FewShotClassifier` fitted to the labelled data, the number of its examples, and what the data holds.

    Raises `InputError`.
    """
    flags = arguments.examples
    modality = modality_of_encoder(flags.encoder, flags.modality)
    examples, data = _load_to_learn(modality, flags.data, arguments)
    items, labels = _with_descriptions(examples.choose(arguments.classifier.shots, flags.seed), arguments.classifier)
    unlabelled = load_unlabelled(modality, flags.unlabelled, arguments.columns)
    classifier = _new_classifier(arguments.classifier, flags.encoder, flags.seed, flags.modality)
    return classifier.fit(items, labels, unlabelled), len(items), data


def _load_to_learn(modality: Modality, name: str, arguments: Any) -> tuple[Examples, dict[str, Any]]:
    """Examples to learn from, and what the data holds, which is printed."""
    source = open_examples(modality, name, arguments.columns)
    examples = load_examples(modality, source, arguments.examples.split)
    source.summary.say()
    return examples, source.summary.as_json()


def _new_classifier(flags: ClassifierArguments, encoder: str | None, seed: int = 0, modality_name: str | None = None):
    """The classifier that the flags describe; of features if `encoder` is None."""
    from toolkit.transfer.few_shot_classifier import FewShotClassifier

    settings = {name: getattr(flags, name) for name in ("method", "metric", "rounds", "max_steps", "learning_rate")}
    return FewShotClassifier(encoder, random_state=seed, modality_name=modality_name, **settings)


def _with_labels(examples: Examples, source: Source, labels: list[str]) -> Examples:
    """The examples with the labels that the user names, if any. Raises `InputError` if one is not there."""
    if unknown := set(labels) - set(examples.labels):
        raise InputError(f"--labels {min(unknown)}: no such label in {source.name}")
    return examples.with_labels(labels) if labels else examples


def _evaluate_episodes(arguments: EvaluateFewShotArguments) -> tuple[dict[str, Any], list[dict]]:
    """Fields of the record, and a line per episode."""
    from toolkit.transfer.episodes import draw_episodes
    from toolkit.transfer.features import load_featurizer

    flags, protocol, given = arguments.classifier, arguments.protocol, arguments.examples
    featurizer = load_featurizer(given.encoder, modality_name=given.modality)
    if flags.num_steps:
        raise InputError(f"--method {flags.method}: goes with --seeds, episodes leave the encoder as it is")
    for name in ("descriptions", "rounds"):
        if getattr(flags, name):
            raise InputError(f"--{name}: goes with --seeds, an episode has its labelled examples alone")
    source = open_examples(featurizer.modality, given.data, arguments.columns, protocol.within)
    examples = load_examples(featurizer.modality, source, given.split, "test")
    examples = _with_labels(examples, source, protocol.labels).with_groups(protocol.groups, source.name)
    source.summary.say()
    unlabelled = load_unlabelled(featurizer.modality, given.unlabelled, arguments.columns)
    featurizer.adapt(examples.items)
    features = featurizer(examples.items)
    mean = None if unlabelled is None else featurizer(unlabelled).mean(axis=0, keepdims=True)
    shots = flags.shots or 1
    classifier, classes = _new_classifier(flags, None), np.arange(protocol.ways)
    shape = protocol.ways, shots, protocol.queries
    lines: list[dict[str, Any]] = []
    for episode in draw_episodes(examples.labels, *shape, protocol.episodes, given.seed, examples.groups):
        classifier.fit(features[episode.support.ravel()], np.repeat(classes, shots), mean)
        predicted = classifier.predict(features[episode.query.ravel()])
        hits = int((predicted == np.repeat(classes, protocol.queries)).sum())
        names = [examples.labels[i] for i in episode.support[:, 0]]
        lines.append({"classes": names, "hits": hits, "queries": len(predicted)})
    hits_of, queries = ([line[name] for line in lines] for name in ("hits", "queries"))
    return {
        "parameters": featurizer.model.num_parameters(),
        "split": examples.split or "all",
        "n": sum(queries),
        "classes": len(set(examples.labels)),
        "data": source.summary.as_json(),
        "metrics": {"accuracy": ratio_interval(hits_of, queries)},
    }, lines


def _evaluate_seeds(arguments: EvaluateFewShotArguments) -> tuple[dict[str, Any], list[dict]]:
    """Fields of the record, and a line per test item."""
    from toolkit.transfer.features import load_featurizer

    flags, protocol, given = arguments.classifier, arguments.protocol, arguments.examples
    featurizer = load_featurizer(given.encoder, modality_name=given.modality)
    if protocol.within is not None:
        raise InputError(f"--within {protocol.within}: goes with episodes, not with --seeds")
    source = open_examples(featurizer.modality, given.data, arguments.columns)
    both = load_test_and_train(featurizer.modality, source, given.split)
    test, train = (_with_labels(examples, source, protocol.labels) for examples in both)
    source.summary.say()
    unlabelled: Any = load_unlabelled(featurizer.modality, given.unlabelled, arguments.columns)
    # An encoder that is not fine-tuned runs once over the data, for all seeds.
    featurizer.adapt(train.items)
    encoder, encode = (given.encoder, list) if flags.num_steps else (None, featurizer)
    tested, unlabelled = encode(test.items), None if unlabelled is None else encode(unlabelled)
    predicted, seconds = [], []
    assert protocol.seeds is not None
    for seed in range(given.seed, given.seed + protocol.seeds):
        items, labels = _with_descriptions(train.choose(flags.shots, seed), flags)
        stopwatch = Stopwatch()
        classifier = _new_classifier(flags, encoder, seed, given.modality).fit(encode(items), labels, unlabelled)
        predicted.append(classifier.predict(tested).tolist())
        seconds.append(stopwatch.seconds)
    hits = np.array(predicted) == np.array(test.labels)  # (seeds, items)
    by_seed = hits.mean(axis=1).tolist()
    return {
        "parameters": featurizer.model.num_parameters(),
        "split": test.split,
        "n": len(test.labels),
        "classes": len(set(train.labels)),
        "data": source.summary.as_json(),
        "metrics": {"accuracy": ratio_interval(hits.sum(axis=0), [len(hits)] * len(test.labels))},
        "num_steps": flags.num_steps,
        "by_seed": by_seed,
        "deviation": statistics.stdev(by_seed) if len(by_seed) > 1 else None,
        "seconds_by_seed": seconds,
    }, test.lines(predicted)


def _evaluate_folds(arguments: EvaluateFewShotArguments) -> tuple[dict[str, Any], list[dict]]:
    """Fields of the record, and a line per example."""
    from toolkit.data.rows import content_of
    from toolkit.transfer.cross_validation import cross_validate
    from toolkit.transfer.features import load_featurizer

    flags, protocol, given = arguments.classifier, arguments.protocol, arguments.examples
    featurizer = load_featurizer(given.encoder, modality_name=given.modality)
    if flags.num_steps or flags.rounds or flags.descriptions:
        raise InputError("--folds: goes with the methods prototype, nearest and linear alone")
    source = open_examples(featurizer.modality, given.data, arguments.columns, protocol.within)
    examples = load_examples(featurizer.modality, source, given.split)
    examples = _with_labels(examples, source, protocol.labels).with_groups(protocol.groups, source.name)
    source.summary.say()
    featurizer.adapt(examples.items)
    assert protocol.folds is not None
    contents = list(map(content_of, examples.items))
    features, classifier = featurizer(examples.items), _new_classifier(flags, None)
    found = cross_validate(classifier, features, examples.labels, contents, protocol.folds, given.seed)
    return {
        "parameters": featurizer.model.num_parameters(),
        "split": examples.split or "all",
        "n": len(examples.labels),
        "classes": len(set(examples.labels)),
        "data": source.summary.as_json(),
        "metrics": {"accuracy": found.accuracy},
        "folds": found.num_folds,
    }, examples.lines([found.predicted.tolist()])


def _with_descriptions(examples: Examples, flags: ClassifierArguments) -> tuple[list[Any], list[str]]:
    """Items and labels of the examples, and of the descriptions of labels if they are given. Raises `InputError`."""
    if flags.descriptions is None:
        return examples.items, examples.labels
    if not examples.modality.items_are_texts:
        raise InputError("--descriptions: goes with an encoder of texts")
    table = None if flags.descriptions == "names" else flags.descriptions
    described = describe_labels(sorted(set(examples.labels)), table)
    return [*examples.items, *described.values()], [*examples.labels, *described]
