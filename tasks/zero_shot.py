"""Zero-shot classification: classes are known by their names or descriptions; some of them may have examples too.

If no class has examples, the figure is accuracy. If some classes (the seen ones) have labelled examples, the figures
are also the accuracies on items of seen and of unseen classes and their harmonic mean (Xian, Schiele & Akata 2017,
https://arxiv.org/abs/1703.04394); all classes are predicted.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tasks.examples import (
    ExampleClassifierArguments,
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
)
from toolkit.errors import InputError, check_not_negative, check_positive, check_share
from toolkit.metrics.intervals import bootstrap_harmonic_mean, bootstrap_ratio, ratio_interval
from toolkit.modalities import Modality
from toolkit.runs.arguments import Arguments, defaults, without
from toolkit.transfer.encoders import modality_of_encoder


@dataclass(kw_only=True)
class DescriptionArguments(Arguments):
    """classifier"""

    method: Literal["nearness", "entailment"] = "nearness"
    """nearness: the class whose description is nearest in the encoder's space; entailment: the class whose hypothesis
    a model of natural language inference, then the --encoder, finds to follow from the text."""
    descriptions: str | None = None
    """Table with the columns label and description (default: the labels, underscores read as spaces)."""
    label_encoder: str | None = None
    """Encoder of texts that reads the descriptions, if --encoder reads images or recordings."""
    rounds: int = 0
    """Rounds of bootstrapping, in which the classes move to the --unlabelled items that are most similar to them."""
    hypothesis: str = "This example is about {}."
    """Hypothesis of --method entailment; the braces stand for the description."""

    def check(self) -> None:
        check_not_negative(self, "rounds")


@dataclass(kw_only=True)
class ZeroShotArguments(ExampleClassifierArguments):
    classifier: DescriptionArguments = defaults(DescriptionArguments)

    def check(self) -> None:
        if self.classifier.method == "entailment" and (self.examples.unlabelled or self.classifier.label_encoder):
            raise InputError("--method entailment: takes neither --unlabelled nor --label_encoder")


@dataclass(kw_only=True)
class SeenArguments(Arguments):
    """protocol"""

    seen_fraction: float | None = None
    """Fraction of the labels, drawn by the seed, that have --shots examples each from the training split."""
    unseen: list[str] = field(default_factory=list)
    """Instead of a fraction: the labels without examples."""
    shots: int = 10
    """Labelled examples of each seen label."""
    seeds: int = 5
    """Number of draws of seen labels and examples; without seen labels there is one evaluation."""

    def check(self) -> None:
        check_positive(self, "shots seeds")
        check_share(self, "seen_fraction")
        if self.seen_fraction and self.unseen:
            raise InputError("--seen_fraction and --unseen: expected one of them")

    @property
    def is_generalized(self) -> bool:
        """Whether some classes have examples (generalized zero-shot classification)."""
        return self.seen_fraction is not None or bool(self.unseen)


@dataclass(kw_only=True)
class EvaluateZeroShotArguments(ZeroShotArguments):
    seen: SeenArguments = defaults(SeenArguments)
    output: OptionalOutput = defaults(OptionalOutput)

    def check(self) -> None:
        if self.seen.is_generalized and self.classifier.method == "entailment":
            raise InputError("--method entailment: knows labels by their descriptions alone")


@dataclass(kw_only=True)
class UnseenLabels(Arguments):
    """classes"""

    labels: list[str] = field(default_factory=list)
    """Classes without examples, by their names (default: those in --descriptions)."""


@dataclass(kw_only=True)
class PredictZeroShotArguments(ZeroShotArguments):
    examples: OptionalExamples = without()
    unseen: UnseenLabels = defaults(UnseenLabels)
    input: InputArguments = defaults(InputArguments)

    def check(self) -> None:
        if not self.unseen.labels and self.classifier.descriptions is None:
            raise InputError("give the names of classes with --labels, or --descriptions")
        if self.examples.data is not None and self.classifier.method == "entailment":
            raise InputError("--method entailment: knows labels by their descriptions alone")


def evaluate(arguments: EvaluateZeroShotArguments) -> dict[str, Any]:
    """Measure zero-shot classification; returns the record. Raises `InputError`."""
    return write_evaluation("zero-shot", arguments, _measure)


def _measure(arguments: EvaluateZeroShotArguments) -> tuple[dict[str, Any], list[dict]]:
    """Fields of the record, and a line per test item."""
    given = arguments.examples
    modality = modality_of_encoder(given.encoder, given.modality)
    source = open_examples(modality, given.data, arguments.columns)
    if arguments.seen.is_generalized:
        test, train = load_test_and_train(modality, source, given.split)
    else:
        test, train = load_examples(modality, source, given.split, "test"), None
    source.summary.say()
    names = sorted(set(test.labels))
    if arguments.classifier.method == "entailment":
        predicted, fields = _by_entailment(arguments, test, names)
    else:
        predicted, fields = _by_nearness(arguments, test, train, names)
    fields |= {"split": test.split or "all", "n": len(test.items), "classes": len(names)}
    fields["data"] = source.summary.as_json()
    return {**fields, "throughput_unit": f"{modality.name}s/s"}, test.lines(predicted)


def fit_classifier(modality: Modality, arguments: PredictZeroShotArguments):
    """A classifier of the classes that have names, descriptions or examples. Raises `InputError`."""
    from toolkit.transfer.zero_shot_classifier import EntailmentClassifier, ZeroShotClassifier

    items, labels, given, flags = [], [], arguments.examples, arguments.classifier
    if given.data is not None:
        source = open_examples(modality, given.data, arguments.columns)
        examples = load_examples(modality, source, given.split)
        source.summary.say()
        items, labels = examples.items, examples.labels
    described = describe_labels(sorted({*arguments.unseen.labels, *labels}), flags.descriptions)
    if flags.method == "entailment":
        return EntailmentClassifier(given.encoder, flags.hypothesis).fit(described)
    classifier = ZeroShotClassifier(
        given.encoder, flags.label_encoder, flags.rounds, random_state=given.seed, modality_name=given.modality
    )
    return classifier.fit(described, items, labels, load_unlabelled(modality, given.unlabelled, arguments.columns))


def _by_entailment(arguments: EvaluateZeroShotArguments, test: Examples, names: list[str]):
    """The predicted labels, in a list of one run, and fields of the record."""
    from toolkit.transfer.zero_shot_classifier import EntailmentClassifier

    if not test.modality.items_are_texts:
        raise InputError("--method entailment: goes with texts")
    flags = arguments.classifier
    classifier = EntailmentClassifier(arguments.examples.encoder, flags.hypothesis)
    classifier.fit(describe_labels(names, flags.descriptions))
    predicted = classifier.predict(test.items).tolist()
    hits = np.array(predicted) == np.array(test.labels)
    metrics = {"accuracy": ratio_interval(hits, np.ones(len(hits)))}
    return [predicted], {"metrics": metrics, "parameters": classifier.num_parameters}


def _by_nearness(
    arguments: EvaluateZeroShotArguments, test: Examples, train: Examples | None, names: list[str]
) -> tuple[list[list[str]], dict[str, Any]]:
    """The predicted labels of each seed, and fields of the record; `train` holds examples of seen classes."""
    from toolkit.transfer.features import load_featurizer
    from toolkit.transfer.zero_shot_classifier import ZeroShotClassifier, encoder_of_descriptions

    given, flags, seen = arguments.examples, arguments.classifier, arguments.seen
    featurizer = load_featurizer(given.encoder, modality_name=given.modality)
    featurizer.adapt(() if train is None else train.items)
    describer = encoder_of_descriptions(featurizer, flags.label_encoder)
    unlabelled: Any = load_unlabelled(test.modality, given.unlabelled, arguments.columns)
    described = describer(list(describe_labels(names, flags.descriptions).values()))
    unlabelled = None if unlabelled is None else featurizer(unlabelled)
    features, labels = featurizer(test.items), np.array(test.labels)
    classifier = ZeroShotClassifier(given.encoder, flags.label_encoder, flags.rounds, modality_name=given.modality)
    predicted, of_seen = [], []
    for seed in range(given.seed, given.seed + (seen.seeds if train is not None else 1)):
        examples: tuple[Any, Any] = (None, ())
        if train is not None:
            chosen = train.with_labels(_seen_labels(names, arguments, seed)).choose(seen.shots, seed)
            examples = featurizer(chosen.items), chosen.labels
        classifier.set_params(random_state=seed).fit_features(names, described, *examples, unlabelled)
        predicted.append(classifier.classes_[classifier.logits_of(features).argmax(axis=1)])
        of_seen.append(np.isin(labels, classifier.classes_[classifier.is_seen_]))
    fields = _figures(np.stack(predicted) == labels, np.stack(of_seen), seen.is_generalized)
    return [each.tolist() for each in predicted], {"parameters": featurizer.model.num_parameters(), **fields}


def _figures(hits: np.ndarray, of_seen: np.ndarray, is_generalized: bool) -> dict[str, Any]:
    """Fields of the record; (seeds, items): which predictions are right, and which items are of seen classes."""
    from scipy.stats import hmean

    figures = {"accuracy": bootstrap_ratio(hits.sum(axis=0), [len(hits)] * hits.shape[1])}
    fields: dict[str, Any] = {}
    if is_generalized:
        groups = of_seen, ~of_seen
        seen, unseen = (bootstrap_ratio((hits & group).sum(axis=0), group.sum(axis=0)) for group in groups)
        figures |= {"seen": seen, "unseen": unseen, "harmonic_mean": bootstrap_harmonic_mean([seen, unseen])}
        pairs = zip(hits, of_seen, strict=True)
        fields["by_seed"] = [float(hmean([run[seen].mean(), run[~seen].mean()])) for run, seen in pairs]
    return {"metrics": {name: figure.interval() for name, figure in figures.items()}, **fields}


def _seen_labels(names: list[str], arguments: EvaluateZeroShotArguments, seed: int) -> set[str]:
    """The labels that have examples. Raises `InputError`."""
    flags = arguments.seen
    if unknown := set(flags.unseen) - set(names):
        raise InputError(f"--unseen {min(unknown)}: no such label in {arguments.examples.data}")
    if flags.unseen:
        return set(names) - set(flags.unseen)
    assert flags.seen_fraction is not None
    count = round(flags.seen_fraction * len(names))
    if not 0 < count < len(names):
        raise InputError(f"--seen_fraction {flags.seen_fraction}: of {len(names)} labels {count} would be seen")
    return set(np.random.default_rng(seed).permutation(names)[:count].tolist())
