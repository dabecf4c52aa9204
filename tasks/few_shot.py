"""Few-shot classification: classes that are known by a handful of labelled examples each, of any modality.

Two protocols: many small problems (episodes) sampled from classes that pretraining never saw (Vinyals et al. 2016,
https://arxiv.org/abs/1606.04080), for which the encoder runs once over all examples; or a few labelled examples of
every class and the whole test set, with several seeds (Tunstall et al. 2022, https://arxiv.org/abs/2209.11055).
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from toolkit.data.columns import LabelColumn
from toolkit.data.sources import SAMPLE
from toolkit.errors import InputError, check_not_negative, check_positive
from toolkit.hub.arguments import HubArguments
from toolkit.modalities import MODALITIES, Modality
from toolkit.runs.arguments import Arguments, defaults, to_flags, without
from toolkit.runs.output import OutputArguments, check_output_dir, create_output_dir
from toolkit.runs.results import PREDICTIONS_FILE, RESULTS_FILE, Stopwatch, write_results
from toolkit.transfer.encoders import modality_of_encoder

# Which columns of a table hold what, for every modality.
ExampleColumns: Any = dataclass(kw_only=True)(
    type("ExampleColumns", (LabelColumn, *(each.columns for each in MODALITIES.values())), {"__doc__": "columns"})
)


@dataclass(kw_only=True)
class ExamplesArguments(Arguments):
    """data"""

    encoder: str
    """A checkpoint folder or a Hub id."""
    data: str
    """Labelled data: a file, a folder with one file per split or one folder per class, a Hub id, or 'sample'."""
    split: str | None = None
    """Split of a folder or Hub data set (default: test to evaluate, train to learn from)."""
    unlabelled: str | None = None
    """Unlabelled data, on whose mean features are centred (default: the labelled examples)."""
    seed: int = 0
    """Seed of the choice of examples, and of fine-tuning."""

    def check(self) -> None:
        check_not_negative(self, "seed")


@dataclass(kw_only=True)
class ClassifierArguments(Arguments):
    """classifier"""

    shots: int | None = None
    """Labelled examples of each class (default: all)."""
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


@dataclass(kw_only=True)
class FewShotArguments(Arguments):
    """Which examples are learned from, and how."""

    examples: ExamplesArguments
    classifier: ClassifierArguments = defaults(ClassifierArguments)
    columns: ExampleColumns = defaults(ExampleColumns)  # type: ignore[valid-type]

    def check(self) -> None:
        if self.classifier.rounds and self.examples.unlabelled is None:
            raise InputError(f"--rounds {self.classifier.rounds}: goes with --unlabelled")


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
    """Column of a table: the classes of an episode have the same value in it, such as characters of one alphabet."""
    labels: list[str] = field(default_factory=list)
    """Use these labels only, such as those that pretraining never saw (default: all)."""
    seeds: int | None = None
    """Instead of episodes: learn from --shots examples of every class of the training split and classify the whole
    test split, with this many seeds."""

    def check(self) -> None:
        check_positive(self, "ways queries episodes seeds")
        if len(self.labels) == 1:
            raise InputError(f"--labels {self.labels[0]}: expected two labels or more")
        if self.ways < 2:
            raise InputError(f"--ways {self.ways}: expected two classes or more")


@dataclass(kw_only=True)
class OptionalOutput(Arguments):
    """output"""

    output_dir: str | None = None
    """Folder for results.json and predictions.jsonl (default: results are only printed)."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""

    @property
    def folder(self) -> OutputArguments | None:
        if self.output_dir is None:
            return None
        return OutputArguments(output_dir=self.output_dir, overwrite_output_dir=self.overwrite_output_dir)


@dataclass(kw_only=True)
class EvaluateArguments(FewShotArguments):
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
class FitArguments(FewShotArguments):
    output: OutputArguments
    calibration: CalibrationArguments = defaults(CalibrationArguments)
    hub: HubArguments = defaults(HubArguments)


@dataclass(kw_only=True)
class InputArguments(Arguments):
    """input and output"""

    inputs: list[str] = field(default_factory=list)
    """Texts, or files of texts or images, or folders of images; without any, texts from standard input, one a line."""
    output_format: Literal["tsv", "jsonl"] = "tsv"
    """tsv: label, probability and item; jsonl: one item per line, with the probability of every label."""


@dataclass(kw_only=True)
class OptionalExamples(ExamplesArguments):
    data: str | None = None  # type: ignore[assignment]
    """Labelled data to learn from on the spot; then --encoder is an encoder and no classifier of fewshot fit."""


@dataclass(kw_only=True)
class PredictArguments(FewShotArguments):
    examples: OptionalExamples = without()
    input: InputArguments = defaults(InputArguments)


class Examples(NamedTuple):
    """Labelled items, and the group of each, such as the alphabet of a character."""

    items: list[Any]
    labels: list[str]
    groups: list[str] | None = None

    def of(self, labels: set[str]) -> "Examples":
        """The examples of these labels."""
        places = [place for place, label in enumerate(self.labels) if label in labels]
        groups = None if self.groups is None else [self.groups[place] for place in places]
        return Examples([self.items[place] for place in places], [self.labels[place] for place in places], groups)

    def only(self, labels: Sequence[str], source: str) -> "Examples":
        """The examples of these labels, or all if none is named. Raises `InputError` for an unknown label."""
        if unknown := set(labels) - set(self.labels):
            raise InputError(f"--labels {min(unknown)}: no such label in {source}")
        return self.of(set(labels)) if labels else self

    def choose(self, shots: int | None, seed: int) -> tuple[list[Any], list[str]]:
        """Items and labels of `shots` examples per label, or of all. Raises `InputError` if a label has fewer."""
        import datasets

        from toolkit.data.rows import take_subset

        if shots is None:
            return self.items, self.labels
        label, count = min(Counter(self.labels).items(), key=lambda pair: pair[1])
        if count < shots:
            raise InputError(f"--shots {shots}: the label {label} has {count} examples only")
        places = datasets.Dataset.from_dict({"place": range(len(self.labels))})
        chosen = take_subset(places, shots, seed, self.labels)["place"][:]
        return [self.items[place] for place in chosen], [self.labels[place] for place in chosen]

    def lines(self, predicted: Sequence[list[str]]) -> list[dict[str, Any]]:
        """A line per item: its text, if it is one, its label, and the prediction of each run."""
        return [
            {**({"text": item} if isinstance(item, str) else {}), "label": label, "predicted": list(of_item)}
            for item, label, of_item in zip(self.items, self.labels, zip(*predicted, strict=True), strict=True)
        ]


def load_examples(
    modality: Modality, source: str, split: str | None, columns: Any, within: str | None = None
) -> Examples:
    """Labelled examples of a source. Raises `InputError`."""
    rows = modality.load_labelled(source, split, columns, columns.label_column, within)
    return Examples(rows[modality.name][:], rows["label"][:], rows["group"][:] if within else None)


def load_unlabelled(modality: Modality, source: str | None, columns: Any) -> list[Any] | None:
    """Unlabelled items; None if no source is named."""
    return None if source is None else modality.load_unlabelled(source, None, columns)[modality.name][:]


def split_or(named: str | None, usual: str, modality: Modality, source: str) -> str | None:
    """The split that the user names, else the usual one if the source has it."""
    return named or (usual if usual in modality.splits(source) else None)


def evaluate(arguments: EvaluateArguments) -> dict[str, Any]:
    """Measure few-shot classification by one of the two protocols.

    Returns:
        The record, which is also written to the output folder if one is named.

    Raises:
        InputError: The encoder or the data cannot be used.
    """
    from toolkit.transfer.features import load_featurizer

    if arguments.output.folder is not None:
        check_output_dir(arguments.output.folder)
    stopwatch = Stopwatch()
    featurizer = load_featurizer(arguments.examples.encoder)
    measure = _over_episodes if arguments.protocol.seeds is None else _over_seeds
    found, lines = measure(featurizer, arguments)
    found["parameters"] = featurizer.model.num_parameters()
    return write_evaluation("few-shot", "items/s", arguments, stopwatch, found, lines)


def write_evaluation(
    task: str, unit: str, arguments: Any, stopwatch: Stopwatch, found: dict[str, Any], lines: Iterable[dict]
) -> dict[str, Any]:
    """The record of an evaluation; with an output folder it is written there, with the lines of predictions."""
    record = {
        "task": task,
        "dataset": arguments.examples.data,
        "encoder": arguments.examples.encoder,
        "seed": arguments.examples.seed,
        "num_steps": 0,
        "throughput": found["n"] / stopwatch.seconds,
        "throughput_unit": unit,
        "deterministic": True,
        "arguments": to_flags(arguments),
        **found,
    }
    if arguments.output.folder is None:
        return record
    folder = create_output_dir(arguments.output.folder)
    with open(folder / PREDICTIONS_FILE, "w", encoding="utf-8") as file:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False), file=file)
    return write_results(folder / RESULTS_FILE, stopwatch, **record)


def fit(arguments: FitArguments) -> dict[str, Any]:
    """Write a `FewShotClassifier` to the output folder; returns the record. Raises `InputError`."""
    from toolkit.hub.upload import push_run

    check_output_dir(arguments.output)
    stopwatch = Stopwatch()
    classifier, num_examples = fitted(arguments)
    modality, held_out = classifier.modality, arguments.calibration.calibration_data
    if held_out is not None:
        split = split_or(arguments.examples.split, "train", modality, held_out)
        others = load_examples(modality, held_out, split, arguments.columns)
        classifier.calibrate(others.items, others.labels).set_params(reject=True)
    folder = create_output_dir(arguments.output)
    classifier.save(folder)
    record = write_results(
        folder / RESULTS_FILE,
        stopwatch,
        task="few-shot",
        modality=modality.name,
        dataset=arguments.examples.data,
        split=arguments.examples.split or "train",
        n=num_examples,
        classes=len(classifier.classes_),
        threshold=classifier.threshold_,
        metrics={},
        seed=arguments.examples.seed,
        encoder=arguments.examples.encoder,
        num_steps=_num_steps(arguments.classifier),
        parameters=classifier.num_parameters,
        throughput=num_examples / stopwatch.seconds,
        throughput_unit="items/s",
        deterministic=True,
        arguments=to_flags(arguments),
        **({"sample_license": modality.labelled_sample_license} if arguments.examples.data == SAMPLE else {}),
    )
    push_run(arguments.output.output_dir, arguments.hub.push_to_hub)
    return record


def fitted(arguments: FitArguments | PredictArguments):
    """A `FewShotClassifier` fitted to the labelled data, and the number of its examples."""
    flags = arguments.examples
    modality = modality_of_encoder(flags.encoder)
    split = split_or(flags.split, "train", modality, flags.data)
    examples = load_examples(modality, flags.data, split, arguments.columns)
    chosen = examples.choose(arguments.classifier.shots, flags.seed)
    items, labels = _with_descriptions(*chosen, modality, arguments.classifier.descriptions)
    classifier = make_classifier(arguments.classifier, flags.encoder, flags.seed)
    return classifier.fit(items, labels, load_unlabelled(modality, flags.unlabelled, arguments.columns)), len(items)


def _num_steps(flags: ClassifierArguments) -> int:
    from toolkit.transfer.few_shot_classifier import FINE_TUNING_METHODS

    return flags.max_steps if flags.method in FINE_TUNING_METHODS else 0


def make_classifier(flags: ClassifierArguments, encoder: str | None, seed: int = 0):
    """The classifier that the flags describe; of features if `encoder` is None."""
    from toolkit.transfer.few_shot_classifier import FewShotClassifier

    settings = {name: getattr(flags, name) for name in ("method", "metric", "rounds", "max_steps", "learning_rate")}
    return FewShotClassifier(encoder, random_state=seed, **settings)


def _over_episodes(featurizer, arguments: EvaluateArguments) -> tuple[dict[str, Any], list[dict]]:
    """Fields of the record, and a line per episode."""
    import numpy as np

    from toolkit.metrics.intervals import ratio_interval
    from toolkit.transfer.episodes import draw_episodes
    from toolkit.transfer.few_shot_classifier import FINE_TUNING_METHODS

    flags, protocol, source = arguments.classifier, arguments.protocol, arguments.examples.data
    if flags.method in FINE_TUNING_METHODS:
        raise InputError(f"--method {flags.method}: goes with --seeds, episodes leave the encoder as it is")
    for name in ("descriptions", "rounds"):
        if getattr(flags, name):
            raise InputError(f"--{name}: goes with --seeds, an episode has its labelled examples alone")
    modality = featurizer.modality
    split = split_or(arguments.examples.split, "test", modality, source)
    examples = load_examples(modality, source, split, arguments.columns, protocol.within)
    examples = examples.only(protocol.labels, source)
    unlabelled = load_unlabelled(modality, arguments.examples.unlabelled, arguments.columns)
    features = featurizer(examples.items)
    centre = None if unlabelled is None else featurizer(unlabelled).mean(axis=0, keepdims=True)
    shots = flags.shots or 1
    classifier, classes = make_classifier(flags, None), np.arange(protocol.ways)
    shape = protocol.ways, shots, protocol.queries
    lines: list[dict[str, Any]] = []
    seed = arguments.examples.seed
    for episode in draw_episodes(examples.labels, *shape, protocol.episodes, seed, examples.groups):
        classifier.fit(features[episode.support.ravel()], np.repeat(classes, shots), centre)
        predicted = classifier.predict(features[episode.query.ravel()])
        hits = int((predicted == np.repeat(classes, protocol.queries)).sum())
        names = [examples.labels[place] for place in episode.support[:, 0]]
        lines.append({"classes": names, "hits": hits, "queries": len(predicted)})
    hits_of, queries = ([line[name] for line in lines] for name in ("hits", "queries"))
    return {
        "split": split or "all",
        "n": sum(queries),
        "classes": len(set(examples.labels)),
        "metrics": {"accuracy": ratio_interval(hits_of, queries)},
    }, lines


def _over_seeds(featurizer, arguments: EvaluateArguments) -> tuple[dict[str, Any], list[dict]]:
    """Fields of the record, and a line per test item."""
    from toolkit.metrics.intervals import ratio_interval
    from toolkit.transfer.few_shot_classifier import FINE_TUNING_METHODS

    flags, protocol, source = arguments.classifier, arguments.protocol, arguments.examples.data
    if protocol.within is not None:
        raise InputError(f"--within {protocol.within}: goes with episodes, not with --seeds")
    modality = featurizer.modality
    split = split_or(arguments.examples.split, "test", modality, source)
    train, test = (
        load_examples(modality, source, name, arguments.columns).only(protocol.labels, source)
        for name in ("train", split)
    )
    unlabelled: Any = load_unlabelled(modality, arguments.examples.unlabelled, arguments.columns)
    encoder: str | None = arguments.examples.encoder
    encode, tested = list, test.items
    if flags.method not in FINE_TUNING_METHODS:  # the encoder is the same for all seeds and runs once over the data
        if unlabelled is not None:
            unlabelled = featurizer(unlabelled)
        encoder, encode, tested = None, featurizer, featurizer(test.items)
    predicted, seconds = [], []
    assert protocol.seeds is not None
    for seed in range(arguments.examples.seed, arguments.examples.seed + protocol.seeds):
        items, labels = _with_descriptions(*train.choose(flags.shots, seed), modality, flags.descriptions)
        stopwatch = Stopwatch()
        classifier = make_classifier(flags, encoder, seed).fit(encode(items), labels, unlabelled)
        predicted.append(classifier.predict(tested).tolist())
        seconds.append(stopwatch.seconds)
    hits = [[int(p == right) for p, right in zip(of_seed, test.labels, strict=True)] for of_seed in predicted]
    by_seed = [statistics.fmean(of_seed) for of_seed in hits]
    lines = test.lines(predicted)
    return {
        "split": split,
        "n": len(lines),
        "classes": len(set(train.labels)),
        "metrics": {
            "accuracy": ratio_interval([sum(of_item) for of_item in zip(*hits, strict=True)], [len(hits)] * len(lines))
        },
        "num_steps": _num_steps(flags),
        "by_seed": by_seed,
        "deviation": statistics.stdev(by_seed) if len(by_seed) > 1 else None,
        "seconds_by_seed": seconds,
    }, lines


def describe_labels(names: Sequence[str], table: str | None) -> dict[str, str]:
    """A text for each label: from a table, or the label itself with underscores read as spaces.

    Args:
        names: The labels; without any, all labels of the table.
        table: A table with the columns label and description.

    Raises:
        InputError: The table lacks a label, or two labels have the same description.
    """
    from toolkit.data.sources import TABLE_BUILDERS, find_files, full_column, load_table

    if table is None:
        return {name: name.replace("_", " ") for name in names}
    rows = load_table(table, find_files(table, set(TABLE_BUILDERS), None), None)
    if missing := {"label", "description"} - set(rows.column_names):
        raise InputError(f"{table}: has no column {min(missing)}, but {', '.join(rows.column_names)}")
    labels, texts = (full_column(table, rows, name) for name in ("label", "description"))
    of_label = dict(zip(map(str, labels), texts, strict=True))
    for name in names or of_label:
        if name not in of_label:
            raise InputError(f"{table}: has no description of the label {name}")
    if len(set(of_label.values())) < len(of_label):
        raise InputError(f"{table}: two labels have the same description")
    return {name: of_label[name] for name in names or of_label}


def _with_descriptions(
    items: list[Any], labels: list[str], modality: Modality, descriptions: str | None
) -> tuple[list[Any], list[str]]:
    """The examples, and the description of each label if descriptions are given. Raises `InputError`."""
    if descriptions is None:
        return items, labels
    if modality.name != "text":
        raise InputError("--descriptions: goes with an encoder of texts")
    described = describe_labels(sorted(set(labels)), None if descriptions == "names" else descriptions)
    return [*items, *described.values()], [*labels, *described]
