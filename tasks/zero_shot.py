"""Zero-shot classification: classes that are known by their names or descriptions, some of them by examples too.

Where every class is known by its description alone, the figure is accuracy. Where some, the seen ones, have labelled
examples too, all classes are predicted, and the figures are the accuracy of items of seen and of unseen classes and
their harmonic mean (Xian, Schiele & Akata 2017, https://arxiv.org/abs/1703.04394).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tasks.few_shot import (
    DataArguments,
    Examples,
    describe,
    if_there,
    load_examples,
    load_unlabelled,
    test_split,
    write_measured,
)
from toolkit.errors import InputError, check_not_negative, check_positive, check_share


@dataclass(kw_only=True)
class ZeroShotArguments(DataArguments):
    """By what classes are known."""

    method: Literal["nearness", "entailment"] = "nearness"
    """nearness: the description that lies nearest in the encoder's space; entailment: what a model of natural language
    inference, then the --encoder, says to follow from the text."""
    descriptions: str | None = None
    """Table with the columns label and description (default: the names of the labels, underscores read as spaces)."""
    label_encoder: str | None = None
    """Where --encoder reads images: an encoder of texts that reads the descriptions."""
    rounds: int = 0
    """How often the classes move to the --unlabelled items that are most like them (bootstrapping)."""
    hypothesis: str = "This example is about {}."
    """What --method entailment asks of a text; the braces stand for the description."""

    def __post_init__(self):
        super().__post_init__()
        check_not_negative(self, "rounds")
        if self.rounds and self.unlabelled is None:
            raise InputError(f"--rounds {self.rounds}: goes with --unlabelled")
        if self.method == "entailment" and (self.unlabelled or self.label_encoder):
            raise InputError("--method entailment: takes neither --unlabelled nor --label_encoder")


@dataclass(kw_only=True)
class EvaluateArguments(ZeroShotArguments):
    seen_fraction: float | None = None
    """Share of the labels, drawn by the seed, that have --shots examples each from the training split."""
    unseen: list[str] = field(default_factory=list)
    """Instead of a share: the labels without examples."""
    shots: int = 10
    """Labelled examples of each seen label."""
    seeds: int = 5
    """How many draws of seen labels and examples; without any, one evaluation."""
    output_dir: str | None = None
    """Folder for results.json and predictions.jsonl (default: they are only printed)."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "shots seeds")
        check_share(self, "seen_fraction")
        if self.seen_fraction and self.unseen:
            raise InputError("--seen_fraction and --unseen: expected one of them")
        if self.is_generalised and self.method == "entailment":
            raise InputError("--method entailment: knows labels by their descriptions alone")

    @property
    def is_generalised(self) -> bool:
        return self.seen_fraction is not None or bool(self.unseen)


@dataclass(kw_only=True)
class PredictArguments(ZeroShotArguments):
    data: str | None = None  # type: ignore[assignment]
    """Labelled examples of some of the classes."""
    labels: list[str] = field(default_factory=list)
    """Classes without examples, by their names (default: those that --descriptions has)."""
    inputs: list[str] = field(default_factory=list)
    """Texts, or files of texts or images, or folders of images; without any, texts from standard input, one a line."""
    output_format: Literal["tsv", "jsonl"] = "tsv"
    """tsv: label, probability and item; jsonl: an item a line, with the probability of every label."""

    def __post_init__(self):
        super().__post_init__()
        if not self.labels and self.descriptions is None:
            raise InputError("give the names of classes with --labels, or --descriptions")
        if self.data is not None and self.method == "entailment":
            raise InputError("--method entailment: knows labels by their descriptions alone")


def evaluate(arguments: EvaluateArguments) -> dict[str, Any]:
    """Measure zero-shot classification; returns the record, which is also written to `output_dir`, if there is one.
    Raises `InputError`."""
    from toolkit.reports.results import Stopwatch, check_output_dir
    from toolkit.transfer.features import what_it_reads

    if arguments.output_dir is not None:
        check_output_dir(arguments.output_dir, overwrite=arguments.overwrite_output_dir)
    stopwatch = Stopwatch()
    reads = what_it_reads(arguments.encoder)
    split = test_split(reads, arguments)
    test = load_examples(reads, arguments, split)
    names = sorted(set(test.labels))
    measure = _by_entailment if arguments.method == "entailment" else _by_nearness
    predicted, found = measure(reads, arguments, test, names)
    found |= {"split": split or "all", "n": len(test.items), "classes": len(names)}
    return write_measured("zero-shot", f"{reads}/s", arguments, stopwatch, found, test.lines(predicted))


def fitted(reads: str, arguments: PredictArguments):
    """A classifier of the classes that have names, descriptions or examples. Raises `InputError`."""
    from toolkit.transfer.zero_shot_classifier import EntailmentClassifier, ZeroShotClassifier

    examples = Examples([], [], None)
    if arguments.data is not None:
        split = arguments.split or if_there("train", reads, arguments.data)
        examples = load_examples(reads, arguments, split)
    described = describe(sorted({*arguments.labels, *examples.labels}), arguments.descriptions)
    if arguments.method == "entailment":
        return EntailmentClassifier(arguments.encoder, arguments.hypothesis).fit(described)
    classifier = ZeroShotClassifier(
        arguments.encoder, arguments.label_encoder, arguments.rounds, random_state=arguments.seed
    )
    return classifier.fit(described, examples.items, examples.labels, load_unlabelled(reads, arguments))


def _by_entailment(reads: str, arguments: EvaluateArguments, test: Examples, names: list[str]):
    """The labels predicted, of one run, and fields of the record."""
    from toolkit.metrics.intervals import ratio_interval
    from toolkit.transfer.zero_shot_classifier import EntailmentClassifier

    if reads != "texts":
        raise InputError("--method entailment: goes with texts")
    classifier = EntailmentClassifier(arguments.encoder, arguments.hypothesis)
    classifier.fit(describe(names, arguments.descriptions))
    predicted = classifier.predict(test.items).tolist()
    hits = [int(guess == label) for guess, label in zip(predicted, test.labels, strict=True)]
    metrics = {"accuracy": ratio_interval(hits, [1] * len(hits))}
    return [predicted], {"metrics": metrics, "parameters": classifier.num_parameters}


def _by_nearness(reads: str, arguments: EvaluateArguments, test: Examples, names: list[str]):
    """The labels predicted, of each seed, and fields of the record."""
    from toolkit.metrics.intervals import harmonic_mean_interval, ratio_interval
    from toolkit.transfer.features import load_featuriser
    from toolkit.transfer.zero_shot_classifier import ZeroShotClassifier, reader_of_descriptions

    featuriser = load_featuriser(arguments.encoder)
    reader = reader_of_descriptions(featuriser, arguments.label_encoder)
    train = load_examples(reads, arguments, "train") if arguments.is_generalised else None
    unlabelled = load_unlabelled(reads, arguments)
    described = reader(list(describe(names, arguments.descriptions).values()))
    usual = None if unlabelled is None else featuriser(unlabelled)
    features, labels = featuriser(test.items), np.array(test.labels)
    classifier = ZeroShotClassifier(arguments.encoder, arguments.label_encoder, arguments.rounds)
    found = []
    for seed in range(arguments.seed, arguments.seed + (arguments.seeds if train is not None else 1)):
        examples: tuple[Any, Any] = (None, ())
        if train is not None:
            items, labels_of_items = train.of(_seen(names, arguments, seed)).choose(arguments.shots, seed)
            examples = featuriser(items), labels_of_items
        classifier.set_params(random_state=seed).fit_features(names, described, *examples, usual)
        predicted = classifier.classes_[classifier.logits_of(features).argmax(axis=1)]
        found.append((predicted, np.isin(labels, classifier.classes_[classifier.is_seen_])))
    hits, of_seen = np.stack([predicted == labels for predicted, _ in found]), np.stack([seen for _, seen in found])
    metrics = {"accuracy": ratio_interval(hits.sum(axis=0), [len(hits)] * len(labels))}
    fields: dict[str, Any] = {"parameters": featuriser.model.num_parameters()}
    if train is not None:
        ratios = [((hits & group).sum(axis=0), group.sum(axis=0)) for group in (of_seen, ~of_seen)]
        metrics |= {"seen": ratio_interval(*ratios[0]), "unseen": ratio_interval(*ratios[1])}
        metrics["harmonic_mean"] = harmonic_mean_interval(ratios)
        fields["by_seed"] = [_harmonic_mean(*of_run) for of_run in zip(hits, of_seen, strict=True)]
    return [predicted.tolist() for predicted, _ in found], {"metrics": metrics, **fields}


def _harmonic_mean(hits: np.ndarray, of_seen: np.ndarray) -> float:
    from scipy.stats import hmean

    return float(hmean([hits[of_seen].mean(), hits[~of_seen].mean()]))


def _seen(names: list[str], arguments: EvaluateArguments, seed: int) -> set[str]:
    """The labels that have examples. Raises `InputError`."""
    if unknown := set(arguments.unseen) - set(names):
        raise InputError(f"--unseen {min(unknown)}: no such label in {arguments.data}")
    if arguments.unseen:
        return set(names) - set(arguments.unseen)
    assert arguments.seen_fraction is not None
    count = round(arguments.seen_fraction * len(names))
    if not 0 < count < len(names):
        raise InputError(f"--seen_fraction {arguments.seen_fraction}: of {len(names)} labels {count} would be seen")
    return set(np.random.default_rng(seed).permutation(names)[:count].tolist())
