"""Classify texts or images by a handful of labelled examples a class: evaluate an encoder, fit, predict.

toolkit fewshot evaluate --encoder runs/omniglot --data omniglot/ --split evaluation --label_column character --shots 1
toolkit fewshot evaluate --encoder runs/bert --data banking77/ --shots 8 --seeds 10 --method contrastive
toolkit fewshot fit --encoder runs/bert --data intents.csv --output_dir runs/intents
toolkit fewshot predict --encoder runs/intents 'I lost my card' < more.txt
"""

import json
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.few_shot import EvaluateArguments, FitArguments
from toolkit.errors import InputError
from toolkit.flags import parse_flags, parse_kind


@dataclass(kw_only=True)
class PredictArguments:
    encoder: str
    """Folder or Hub id of a classifier that `toolkit fewshot fit` made."""
    inputs: list[str] = field(default_factory=list)
    """Texts, or files of texts or images, or folders of images; without any, texts from standard input, one a line."""
    output_format: Literal["tsv", "jsonl"] = "tsv"
    """tsv: label, probability and item; jsonl: an item a line, with the probability of every label."""


ACTIONS: dict[str, type] = {"evaluate": EvaluateArguments, "fit": FitArguments, "predict": PredictArguments}


def parse(arguments: list[str]) -> Any:
    action, flags = parse_kind(arguments, "toolkit fewshot", "ACTION", list(ACTIONS), __doc__)
    positionals = ["inputs"] if action == "predict" else []
    return parse_flags(flags, ACTIONS[action], f"toolkit fewshot {action}", __doc__, positionals)


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
    from tasks import TASKS
    from toolkit.data.source import find_inputs
    from toolkit.few_shot import FewShotClassifier

    classifier = FewShotClassifier.from_pretrained(arguments.encoder)
    if not arguments.inputs and sys.stdin.isatty():
        raise InputError("nothing to classify: give texts, files, or texts on standard input")
    is_of_images = classifier.reads == "images"
    inputs = find_inputs(arguments.inputs) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    rows = TASKS["image" if is_of_images else "text"].unlabelled(inputs)
    items = rows["image"][:] if is_of_images else rows["text"][:]
    names = rows["name"][:] if is_of_images else [" ".join(text.split()) for text in items]
    predicted, probabilities = classifier.predict_with_proba(items)
    for name, item, label, row in zip(names, items, predicted, probabilities, strict=True):
        of_label = dict(zip(classifier.classes_.tolist(), row.tolist(), strict=True))
        if arguments.output_format == "tsv":
            print(f"{'-' if label is None else label}\t{max(of_label.values()):.4f}\t{name}")
            continue
        shown = {"image": name} if is_of_images else {"text": item}
        rounded = {key: round(value, 8) for key, value in of_label.items()}
        print(json.dumps({**shown, "predicted": label, "probabilities": rounded}, ensure_ascii=False))
