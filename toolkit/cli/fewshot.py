"""Classify texts or images by a handful of labelled examples a class: evaluate an encoder, fit, predict.

toolkit fewshot evaluate --encoder runs/omniglot --data omniglot/ --split evaluation --label_column character --shots 1
toolkit fewshot evaluate --encoder runs/bert --data banking77/ --shots 8 --seeds 10 --method contrastive
toolkit fewshot fit --encoder runs/bert --data intents.csv --output_dir runs/intents
toolkit fewshot predict --encoder runs/intents 'I lost my card' < more.txt
"""

import json
from collections.abc import Sequence
from typing import Any

from tasks.few_shot import EvaluateArguments, FitArguments, PredictArguments
from toolkit.cli.flags import parse_kind
from toolkit.cli.predict import read_inputs

ACTIONS: dict[str, type] = {"evaluate": EvaluateArguments, "fit": FitArguments, "predict": PredictArguments}


def parse(arguments: list[str]) -> Any:
    return parse_kind(arguments, "toolkit fewshot", "ACTION", ACTIONS, __doc__, ["inputs"])[1]


def run(arguments: Any) -> None:
    from tasks import few_shot

    if isinstance(arguments, PredictArguments):
        _predict(arguments)
    elif isinstance(arguments, EvaluateArguments):
        _show(few_shot.evaluate(arguments))
    else:
        record = few_shot.fit(arguments)
        print(f"{arguments.output_dir}: {record['classes']} classes known by {record['n']} examples")


def _show(record: dict[str, Any]) -> None:
    arguments, accuracy = record["arguments"], record["metrics"]["accuracy"]
    interval = f"accuracy {accuracy['value']:.4f}  [{accuracy['low']:.4f}, {accuracy['high']:.4f}]"
    where = f"{record['dataset']} ({record['split']}, {record['classes']} classes)"
    if arguments["seeds"] is None:
        what = f"{arguments['ways']}-way {arguments['shots']}-shot on {where}, {arguments['episodes']:,} episodes"
        print(f"{what}: {interval}")
        return
    print(f"{arguments['shots']}-shot on {where}, {record['n']:,} test items, {arguments['seeds']} seeds: {interval}")
    print("by seed " + " ".join(f"{value:.4f}" for value in record["by_seed"]), end="")
    print("" if record["deviation"] is None else f", deviation {record['deviation']:.4f}")


def _predict(arguments: PredictArguments) -> None:
    from tasks.few_shot import fitted
    from toolkit.transfer.few_shot_classifier import FewShotClassifier

    inputs = read_inputs(arguments.inputs)
    if arguments.data is None:
        classifier = FewShotClassifier.from_pretrained(arguments.encoder)
    else:
        classifier, _ = fitted(arguments)
    items, names = items_of(inputs, classifier.reads)
    predicted, probabilities = classifier.predict_with_proba(items)
    print_labels(names, classifier.reads, predicted, classifier.classes_, probabilities, arguments.output_format)


def items_of(inputs: Sequence[Any], reads: str) -> tuple[list[Any], list[str]]:
    """What an encoder of `texts` or `images` reads, and what each is called."""
    from tasks import TASKS

    if reads == "images":
        rows = TASKS["image"].unlabelled(inputs)
        return rows["image"][:], rows["name"][:]
    texts = TASKS["text"].unlabelled(inputs)["text"][:]
    return texts, texts


def print_labels(names, reads: str, predicted, classes, probabilities, output_format: str) -> None:
    for name, label, row in zip(names, predicted, probabilities, strict=True):
        of_label = dict(zip(classes.tolist(), row.tolist(), strict=True))
        if output_format == "tsv":
            print(f"{'-' if label is None else label}\t{max(of_label.values()):.4f}\t{' '.join(name.split())}")
            continue
        rounded = {key: round(value, 8) for key, value in of_label.items()}
        shown = {reads.removesuffix("s"): name, "predicted": label, "probabilities": rounded}
        print(json.dumps(shown, ensure_ascii=False))
