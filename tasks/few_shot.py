"""Few-shot classification: classes that are known by a handful of examples each, of texts or of images.

Two protocols measure it. Many small problems, drawn from classes that pretraining never saw (Vinyals et al. 2016,
https://arxiv.org/abs/1606.04080): the encoder runs once over all examples. Or some labelled examples of every class
and the whole test set, with several seeds (Tunstall et al. 2022, https://arxiv.org/abs/2209.11055).
"""

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tasks.base import PREDICTIONS_FILE
from toolkit.errors import InputError, check_not_negative, check_positive
from toolkit.training.arguments import SharedArguments


@dataclass(kw_only=True)
class DataArguments:
    """An encoder, and labelled items of the kind that it reads."""

    encoder: str
    """A checkpoint folder or a Hub id, of an encoder of texts or of images."""
    data: str
    """Labelled data: a file, a folder with one file a split or one folder a class, a Hub id, or 'sample'."""
    unlabelled: str | None = None
    """Text or images without labels, on whose mean features are centred (default: the labelled examples)."""
    seed: int = 0
    """Seed of the choice of examples, and of fine-tuning."""
    split: str | None = None
    """Split of a folder or Hub data set (default: test to evaluate on, train to learn from)."""
    text_column: str | None = None
    """Column of a table that holds the text (default: text, sentence, content or document)."""
    image_column: str | None = None
    """Column of a table that holds images or their paths (default: the one of images, or image, file_name or path)."""
    label_column: str | None = None
    """Column of a table that holds the label (default: label, labels, category or class)."""

    def __post_init__(self):
        check_not_negative(self, "seed")


@dataclass(kw_only=True)
class FewShotArguments(DataArguments):
    """Which examples are learned from, and how."""

    shots: int = 5
    """Labelled examples of each class."""
    method: Literal["prototype", "nearest", "linear", "lp-ft", "contrastive"] = "prototype"
    """prototype: the mean of a class's examples; nearest: its nearest example; linear: logistic regression; lp-ft and
    contrastive: the same after the encoder was fine-tuned on the examples."""
    metric: Literal["cosine", "euclidean", "sqeuclidean"] = "cosine"
    """How the first two compare an item with a class."""
    max_steps: int = 40
    """Steps of fine-tuning."""
    rounds: int = 0
    """How often the --unlabelled items that are surest of their class count as examples of it too (self-training)."""
    descriptions: str | None = None
    """A text for each label that counts as one more example of it: a table with the columns label and description, or
    'names', the labels themselves, underscores read as spaces."""
    learning_rate: float | None = None
    """Peak learning rate of fine-tuning (default: 2e-2 for a table of word vectors, 5e-5 for all others)."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "shots max_steps learning_rate")
        check_not_negative(self, "rounds")
        if self.rounds and self.unlabelled is None:
            raise InputError(f"--rounds {self.rounds}: goes with --unlabelled")


@dataclass(kw_only=True)
class EvaluateArguments(FewShotArguments):
    ways: int = 5
    """Classes of an episode."""
    labels: list[str] = field(default_factory=list)
    """Classify these labels alone, such as those that pretraining never saw (default: all)."""
    queries: int = 15
    """Examples of each class of an episode that are to be classified."""
    episodes: int = 1000
    """Episodes."""
    within: str | None = None
    """Column of a table; the classes of an episode then have the same value in it, such as characters of an
    alphabet."""
    seeds: int | None = None
    """Instead of episodes: learn from --shots examples of every class of the training split, classify the whole test
    split, with so many seeds."""
    output_dir: str | None = None
    """Folder for results.json and predictions.jsonl (default: they are only printed)."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "ways queries episodes seeds")
        if len(self.labels) == 1:
            raise InputError(f"--labels {self.labels[0]}: expected two labels or more")
        if self.ways < 2:
            raise InputError(f"--ways {self.ways}: expected two classes or more")


@dataclass(kw_only=True)
class FitArguments(SharedArguments, FewShotArguments):
    output_dir: str
    """Folder for the classifier, with its encoder."""
    shots: int | None = None  # type: ignore[assignment]
    """Labelled examples of each class (default: all)."""
    calibration_data: str | None = None
    """Labelled data of other classes, by which it is learned what belongs to no class at all; without it every item
    is given one."""
    overwrite_output_dir: bool = False
    """Replace an earlier classifier in the output folder."""

    def __post_init__(self):
        SharedArguments.__post_init__(self)
        FewShotArguments.__post_init__(self)


@dataclass(kw_only=True)
class PredictArguments(FewShotArguments):
    encoder: str
    """Folder or Hub id of a classifier that `toolkit fewshot fit` made; with --data, of an encoder."""
    data: str | None = None  # type: ignore[assignment]
    """Labelled data to learn from on the spot."""
    shots: int | None = None  # type: ignore[assignment]
    """Labelled examples of each class (default: all)."""
    inputs: list[str] = field(default_factory=list)
    """Texts, or files of texts or images, or folders of images; without any, texts from standard input, one a line."""
    output_format: Literal["tsv", "jsonl"] = "tsv"
    """tsv: label, probability and item; jsonl: an item a line, with the probability of every label."""


class Examples(NamedTuple):
    items: list[Any]
    labels: list[str]
    groups: list[str] | None  # of images, such as the alphabet of a character

    def of(self, labels: set[str]) -> "Examples":
        """Those with one of these labels."""
        places = [place for place, label in enumerate(self.labels) if label in labels]
        groups = None if self.groups is None else [self.groups[place] for place in places]
        return Examples([self.items[place] for place in places], [self.labels[place] for place in places], groups)

    def lines(self, predicted: Sequence[list[str]]) -> list[dict[str, Any]]:
        """A line an item, with its text, if it is one, its label and what each run has predicted."""
        return [
            {**({"text": item} if isinstance(item, str) else {}), "label": label, "predicted": list(of_item)}
            for item, label, of_item in zip(self.items, self.labels, zip(*predicted, strict=True), strict=True)
        ]

    def only(self, labels: Sequence[str], source: str) -> "Examples":
        """Those with one of these labels, or all where none is named. Raises `InputError` where there is no such."""
        if unknown := set(labels) - set(self.labels):
            raise InputError(f"--labels {min(unknown)}: no such label in {source}")
        return self.of(set(labels)) if labels else self

    def choose(self, shots: int | None, seed: int) -> tuple[list[Any], list[str]]:
        """So many items of each label, or all, and their labels. Raises `InputError` where a label has fewer."""
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


def load_examples(reads: str, arguments: DataArguments, split: str | None, within: str | None = None) -> Examples:
    """Of `arguments.data`, what an encoder reads: `texts` or `images`. Raises `InputError`."""
    from toolkit.data.image_files import load_labelled_images
    from toolkit.data.labelled_text import load_labelled_text

    if reads == "images":
        columns = arguments.image_column, arguments.label_column
        rows = load_labelled_images(arguments.data, split, *columns, group_column=within)
        return Examples(rows["image"][:], rows["label"][:], rows["group"][:] if within else None)
    if within is not None:
        raise InputError(f"--within {within}: goes with images")
    rows = load_labelled_text(arguments.data, split, arguments.text_column, arguments.label_column)
    return Examples(rows["text"][:], rows["label"][:], None)


def load_unlabelled(reads: str, arguments: DataArguments) -> list[Any] | None:
    """The items that `arguments.unlabelled` names; None where it names none."""
    from toolkit.corpora.text import load_text
    from toolkit.data.image_files import load_corpus_of_images

    if arguments.unlabelled is None:
        return None
    if reads == "images":
        return load_corpus_of_images(arguments.unlabelled, None, arguments.image_column)["image"][:]
    texts = load_text(arguments.unlabelled, None, arguments.text_column)["text"]
    return [text for text in texts if text.strip()]


def evaluate(arguments: EvaluateArguments) -> dict[str, Any]:
    """Measure few-shot classification by one of the two protocols; returns the record, which is also written to
    `output_dir`, if there is one. Raises `InputError`."""
    from toolkit.reports.results import Stopwatch, check_output_dir
    from toolkit.transfer.features import load_featuriser

    if arguments.output_dir is not None:
        check_output_dir(arguments.output_dir, overwrite=arguments.overwrite_output_dir)
    stopwatch = Stopwatch()
    featuriser = load_featuriser(arguments.encoder)
    measure = _over_episodes if arguments.seeds is None else _over_seeds
    found, lines = measure(featuriser, arguments)
    found["parameters"] = featuriser.model.num_parameters()
    return write_measured("few-shot", "items/s", arguments, stopwatch, found, lines)


def write_measured(
    task: str, unit: str, arguments, stopwatch, found: dict[str, Any], lines: Iterable[dict]
) -> dict[str, Any]:
    """The record of an evaluation that `found` those fields; with it `lines` of predictions are written to
    `arguments.output_dir`, if there is one."""
    from toolkit.reports.results import RESULTS_FILE, create_output_dir, write_results

    record = {
        "task": task,
        "dataset": arguments.data,
        "encoder": arguments.encoder,
        "seed": arguments.seed,
        "num_steps": 0,
        "throughput": found["n"] / stopwatch.seconds,
        "throughput_unit": unit,
        "deterministic": True,
        "arguments": dataclasses.asdict(arguments),
        **found,
    }
    if arguments.output_dir is None:
        return record
    folder = create_output_dir(arguments.output_dir, arguments.overwrite_output_dir)
    with open(folder / PREDICTIONS_FILE, "w", encoding="utf-8") as file:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False), file=file)
    return write_results(folder / RESULTS_FILE, stopwatch, **record)


def fit(arguments: FitArguments) -> dict[str, Any]:
    """Leave a `FewShotClassifier` in `output_dir`; returns the record that stands in its `results.json`."""
    from toolkit.hub.upload import share
    from toolkit.reports.results import RESULTS_FILE, Stopwatch, check_output_dir, create_output_dir, write_results

    check_output_dir(arguments.output_dir, overwrite=arguments.overwrite_output_dir)
    stopwatch = Stopwatch()
    classifier, num_examples = fitted(arguments)
    if arguments.calibration_data is not None:
        others = dataclasses.replace(arguments, data=arguments.calibration_data)
        held_out = load_examples(classifier.reads, others, if_there("train", classifier.reads, others.data))
        classifier.calibrate(held_out.items, held_out.labels).set_params(reject=True)
    folder = create_output_dir(arguments.output_dir, arguments.overwrite_output_dir)
    classifier.save(folder)
    record = write_results(
        folder / RESULTS_FILE,
        stopwatch,
        task="few-shot",
        dataset=arguments.data,
        split=arguments.split or "train",
        n=num_examples,
        classes=len(classifier.classes_),
        threshold=classifier.threshold_,
        metrics={},
        seed=arguments.seed,
        encoder=arguments.encoder,
        num_steps=_num_steps(arguments),
        parameters=classifier.num_parameters,
        throughput=num_examples / stopwatch.seconds,
        throughput_unit="items/s",
        deterministic=True,
        arguments=dataclasses.asdict(arguments),
    )
    share(arguments)
    return record


def fitted(arguments: FitArguments | PredictArguments):
    """A `FewShotClassifier` that has learned from `arguments.data`, and from how many examples."""
    from toolkit.transfer.features import what_it_reads

    assert arguments.data is not None
    reads = what_it_reads(arguments.encoder)
    examples = load_examples(reads, arguments, arguments.split or if_there("train", reads, arguments.data))
    items, labels = _with_descriptions(*examples.choose(arguments.shots, arguments.seed), reads, arguments)
    classifier = make_classifier(arguments, arguments.encoder, arguments.seed)
    return classifier.fit(items, labels, load_unlabelled(reads, arguments)), len(items)


def _num_steps(arguments: FewShotArguments) -> int:
    """Of fine-tuning."""
    from toolkit.transfer.few_shot_classifier import OF_ENCODER

    return arguments.max_steps if arguments.method in OF_ENCODER else 0


def make_classifier(arguments: FewShotArguments, encoder: str | None, seed: int = 0):
    """As the flags say; of features where `encoder` is None."""
    from toolkit.transfer.few_shot_classifier import FewShotClassifier

    settings = {
        name: getattr(arguments, name) for name in ("method", "metric", "rounds", "max_steps", "learning_rate")
    }
    return FewShotClassifier(encoder, random_state=seed, **settings)


def _over_episodes(featuriser, arguments: EvaluateArguments) -> tuple[dict[str, Any], list[dict]]:
    """Fields of the record, and a line an episode."""
    import numpy as np

    from toolkit.metrics.intervals import ratio_interval
    from toolkit.transfer.episodes import draw_episodes
    from toolkit.transfer.few_shot_classifier import OF_ENCODER

    if arguments.method in OF_ENCODER:
        raise InputError(f"--method {arguments.method}: goes with --seeds, episodes leave the encoder as it is")
    for name in ("descriptions", "rounds"):
        if getattr(arguments, name):
            raise InputError(f"--{name}: goes with --seeds, an episode has its labelled examples alone")
    split = test_split(featuriser.reads, arguments)
    examples = load_examples(featuriser.reads, arguments, split, arguments.within)
    examples = examples.only(arguments.labels, arguments.data)
    unlabelled = load_unlabelled(featuriser.reads, arguments)
    features = featuriser(examples.items)
    usual = None if unlabelled is None else featuriser(unlabelled).mean(axis=0, keepdims=True)
    classifier, classes = make_classifier(arguments, None), np.arange(arguments.ways)
    shape = arguments.ways, arguments.shots, arguments.queries
    lines: list[dict[str, Any]] = []
    for episode in draw_episodes(examples.labels, *shape, arguments.episodes, arguments.seed, examples.groups):
        classifier.fit(features[episode.support.ravel()], np.repeat(classes, arguments.shots), usual)
        predicted = classifier.predict(features[episode.query.ravel()])
        hits = int((predicted == np.repeat(classes, arguments.queries)).sum())
        names = [examples.labels[place] for place in episode.support[:, 0]]
        lines.append({"classes": names, "hits": hits, "queries": len(predicted)})
    hits_of, queries = ([line[name] for line in lines] for name in ("hits", "queries"))
    return {
        "split": split or "all",
        "n": sum(queries),
        "classes": len(set(examples.labels)),
        "metrics": {"accuracy": ratio_interval(hits_of, queries)},
    }, lines


def _over_seeds(featuriser, arguments: EvaluateArguments) -> tuple[dict[str, Any], list[dict]]:
    """Fields of the record, and a line a test item."""
    from toolkit.metrics.intervals import ratio_interval
    from toolkit.reports.results import Stopwatch
    from toolkit.transfer.few_shot_classifier import OF_ENCODER

    assert arguments.seeds is not None
    if arguments.within is not None:
        raise InputError(f"--within {arguments.within}: goes with episodes, not with --seeds")
    split = test_split(featuriser.reads, arguments)
    train, test = (
        load_examples(featuriser.reads, arguments, name).only(arguments.labels, arguments.data)
        for name in ("train", split)
    )
    unlabelled = load_unlabelled(featuriser.reads, arguments)
    encoder: str | None = arguments.encoder
    encode, tested = list, test.items
    if arguments.method not in OF_ENCODER:  # it is the same for all seeds and runs once over what it has to
        if unlabelled is not None:
            unlabelled = featuriser(unlabelled)
        encoder, encode, tested = None, featuriser, featuriser(test.items)
    predicted, seconds = [], []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        items, labels = _with_descriptions(*train.choose(arguments.shots, seed), featuriser.reads, arguments)
        stopwatch = Stopwatch()
        classifier = make_classifier(arguments, encoder, seed).fit(encode(items), labels, unlabelled)
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
        "num_steps": _num_steps(arguments),
        "by_seed": by_seed,
        "deviation": statistics.stdev(by_seed) if len(by_seed) > 1 else None,
        "seconds_by_seed": seconds,
    }, lines


def describe(names: Sequence[str], table: str | None) -> dict[str, str]:
    """A text for each label; of no label given, for those of the table. Raises `InputError` where it has none."""
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
    items: list[Any], labels: list[str], reads: str, arguments: FewShotArguments
) -> tuple[list[Any], list[str]]:
    """The examples, and the description of each label, where there is one. Raises `InputError`."""
    if arguments.descriptions is None:
        return items, labels
    if reads != "texts":
        raise InputError("--descriptions: goes with an encoder of texts")
    described = describe(sorted(set(labels)), None if arguments.descriptions == "names" else arguments.descriptions)
    return [*items, *described.values()], [*labels, *described]


def test_split(reads: str, arguments: DataArguments) -> str | None:
    """That which the user names, else the test split, where there is one."""
    return arguments.split or if_there("test", reads, arguments.data)


def if_there(split: str, reads: str, source: str) -> str | None:
    from toolkit.data.image_files import splits_of_labelled_images
    from toolkit.data.labelled_text import splits_of_labelled_text

    splits = (splits_of_labelled_images if reads == "images" else splits_of_labelled_text)(source)
    return split if split in splits else None
