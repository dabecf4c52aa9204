"""Downstream tasks, one file each. Importing them loads no torch.

Pretrain, fine-tune, predict:

>>> from tasks import finetune, predict
>>> from toolkit import pretrain
>>> _ = pretrain("elmo", corpus="sample", output_dir="runs/elmo", preset="elmo-tiny", max_steps=20)
>>> record = finetune("pos", encoder="runs/elmo", data="sample", output_dir="runs/tagger", max_steps=60)
>>> record["metrics"]["accuracy"]["value"] > 0.3
True
>>> (sentence,) = predict("runs/tagger", ["Unheard-of wugs frobnicate."])
>>> sentence["tokens"]
['Unheard-of', 'wugs', 'frobnicate', '.']
>>> sentence["predicted"][-1]
'PUNCT'
"""

from collections.abc import Sequence
from typing import Any

from tasks.base import FinetuneArguments, Task, load_predictor, score
from tasks.image_classification import ImageClassification
from tasks.pos_tagging import PosTagging
from tasks.text_classification import TextClassification
from toolkit.data.sources import find_inputs
from toolkit.errors import InputError

TASKS: dict[str, Task] = {"pos": PosTagging(), "text": TextClassification(), "image": ImageClassification()}

__all__ = ["TASKS", "FinetuneArguments", "Task", "finetune", "load_predictor", "predict", "score", "task_of"]


def finetune(task: str, **flags: Any) -> dict[str, Any]:
    """Fine-tune an encoder on the task `pos`, `text` or `image`; flags as in `toolkit finetune TASK --help`.

    Leaves the checkpoint in `output_dir` and returns the record that stands in its `results.json`.
    """
    from tasks import base

    if task not in TASKS:
        raise InputError(f"unknown task '{task}', expected one of {', '.join(TASKS)}")
    return base.finetune(TASKS[task], TASKS[task].arguments_class(**flags))


def predict(folder: str, inputs: Sequence[str]) -> list[dict[str, Any]]:
    """What a fine-tuned checkpoint says of texts, or of files as `toolkit predict` takes them.

    One dictionary a sentence, with `tokens`, `predicted` and `probabilities`, a text, with `text`, `predicted` and
    `probability`, or an image, with `image`, `predicted` and `probabilities`.
    """
    task = task_of(folder)
    rows = task.unlabelled(find_inputs(inputs))
    predictions = load_predictor(task, folder)(rows)
    return [task.as_json(row, prediction) for row, prediction in zip(rows, predictions, strict=True)]


def task_of(folder: str) -> Task:
    """The task that a checkpoint was fine-tuned on, by the head it has. Raises `InputError`."""
    from toolkit.transfer.encoders import load_config

    architectures = load_config(folder).architectures or []
    for task in TASKS.values():
        if any(name.endswith(task.head) for name in architectures):
            return task
    raise InputError(
        f"{folder}: holds {' and '.join(architectures) or 'no known model'}, expected a fine-tuned checkpoint; "
        f"make one with: toolkit finetune {'|'.join(TASKS)} --encoder {folder}"
    )
