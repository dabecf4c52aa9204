"""Classify texts, images or recordings with a handful of labelled examples of each class: evaluate an encoder, fit a
classifier, add classes to it, predict.

toolkit fewshot evaluate --encoder runs/omniglot --data omniglot/ --split evaluation --label_column character --shots 1
toolkit fewshot evaluate --encoder runs/bert --data banking77/ --shots 8 --seeds 10 --method contrastive
toolkit fewshot evaluate --encoder runs/bert --data intents.csv --folds 5
toolkit fewshot fit --encoder runs/bert --data intents.csv --output_dir runs/intents
toolkit fewshot fit --encoder runs/imagenet --modality audio --data words/ --output_dir runs/words
toolkit fewshot add --classifier runs/words --data new_words/ --output_dir runs/more_words
toolkit fewshot predict --encoder runs/intents 'I lost my card' < more.txt
"""

import json
from collections.abc import Sequence
from typing import Any

from tasks.few_shot import AddFewShotArguments, EvaluateFewShotArguments, FitFewShotArguments, PredictFewShotArguments
from toolkit.cli.flags import parse_kind
from toolkit.cli.predict import read_inputs

ACTIONS: dict[str, type] = {
    "evaluate": EvaluateFewShotArguments,
    "fit": FitFewShotArguments,
    "add": AddFewShotArguments,
    "predict": PredictFewShotArguments,
}


def parse(words: Sequence[str]) -> Any:
    return parse_kind(words, "toolkit fewshot", "ACTION", ACTIONS, __doc__, ["inputs"])[1]


def run(arguments: Any) -> None:
    from tasks import few_shot
    from tasks.examples import check_alone

    check_alone()
    if isinstance(arguments, PredictFewShotArguments):
        _predict(arguments)
    elif isinstance(arguments, EvaluateFewShotArguments):
        _show(few_shot.evaluate(arguments))
    else:
        is_new = isinstance(arguments, FitFewShotArguments)
        record = few_shot.fit(arguments) if is_new else few_shot.add(arguments)
        what = "classes known by {} examples" if is_new else "classes, with {} new examples"
        print(f"{arguments.output.output_dir}: {record['classes']} {what.format(record['n'])}")


def _show(record: dict[str, Any]) -> None:
    arguments, accuracy = record["arguments"], record["metrics"]["accuracy"]
    interval = f"accuracy {accuracy['value']:.4f}  [{accuracy['low']:.4f}, {accuracy['high']:.4f}]"
    where = f"{record['dataset']} ({record['split']}, {record['classes']} classes)"
    if arguments["folds"] is not None:
        print(f"{record['folds']}-fold cross-validation on {where}, {record['n']:,} examples: {interval}")
        return
    if arguments["seeds"] is None:
        what = f"{arguments['ways']}-way {arguments['shots']}-shot on {where}, {arguments['episodes']:,} episodes"
        print(f"{what}: {interval}")
        return
    print(f"{arguments['shots']}-shot on {where}, {record['n']:,} test items, {arguments['seeds']} seeds: {interval}")
    print("by seed " + " ".join(f"{value:.4f}" for value in record["by_seed"]), end="")
    print("" if record["deviation"] is None else f", deviation {record['deviation']:.4f}")


def _predict(arguments: PredictFewShotArguments) -> None:
    from tasks.few_shot import fit_classifier
    from toolkit.transfer.few_shot_classifier import FewShotClassifier

    inputs = read_inputs(arguments.input.inputs)
    if arguments.examples.data is None:
        classifier = FewShotClassifier.from_pretrained(arguments.examples.encoder)
    else:
        classifier, *_ = fit_classifier(arguments)
    rows = classifier.modality.read_inputs(inputs, arguments.columns.skip_broken)
    predicted, probabilities = classifier.predict_with_proba([row[classifier.modality.name] for row in rows])
    print_labels(rows, classifier, predicted, probabilities, arguments.input.output_format, classifier.modality)


def print_labels(rows, classifier, predicted, probabilities, output_format: str, modality) -> None:
    """Print one line per item: label, probability and item, or JSON with the probability of every label."""
    for row, label, values in zip(rows, predicted, probabilities, strict=True):
        of_label = dict(zip(classifier.classes_.tolist(), values.tolist(), strict=True))
        if output_format == "tsv":
            print(f"{'-' if label is None else label}\t{max(of_label.values()):.4f}\t{modality.title(row)}")
            continue
        rounded = {key: round(value, 8) for key, value in of_label.items()}
        shown = {**modality.describe(row), "predicted": label, "probabilities": rounded}
        print(json.dumps(shown, ensure_ascii=False))
