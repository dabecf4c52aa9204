"""Downstream tasks, one file each; importing them loads no torch. README shows how to fine-tune and predict."""

from collections.abc import Sequence
from typing import Any

from tasks.audio_classification import AudioClassification
from tasks.image_classification import ImageClassification
from tasks.pos_tagging import PosTagging
from tasks.seq2seq import Seq2Seq
from tasks.task import FinetuneArguments, Task
from tasks.text_classification import TextClassification
from toolkit.data.sources import find_inputs
from toolkit.errors import InputError
from toolkit.runs.arguments import from_flags

TASKS: dict[str, Task] = {
    "pos": PosTagging(),
    "text": TextClassification(),
    "image": ImageClassification(),
    "audio": AudioClassification(),
    "seq2seq": Seq2Seq(),
}

__all__ = ["TASKS", "FinetuneArguments", "Task", "finetune", "predict", "task_of"]


def finetune(task: str, **flags: Any) -> dict[str, Any]:
    """Fine-tune an encoder on a task, with `flags` as in `toolkit finetune TASK --help`.

    The checkpoint is saved in `output_dir`. Returns the record in its `results.json`.

    Raises:
        InputError: There is no such task, or a flag or the data is wrong.
    """
    from tasks import finetuning

    if task not in TASKS:
        raise InputError(f"unknown task '{task}', expected one of {', '.join(TASKS)}")
    return finetuning.finetune(TASKS[task], from_flags(TASKS[task].arguments, **flags))


def predict(folder: str, inputs: Sequence[str]) -> list[dict[str, Any]]:
    """Predict with a fine-tuned checkpoint (a folder or Hub id), from texts, or files as `toolkit predict` takes them.

    Returns one dictionary per sentence, with `tokens`, `predicted` and `probabilities`, per text, with `text`,
    `predicted` and `probability`, per image, with `image`, `predicted` and `probabilities`, or per source of a
    sequence to sequence model, with `source`, `predicted` and `candidates`.
    """
    from tasks.inference import Predictor, prediction_line

    task = task_of(folder)
    predictor = Predictor(task, folder)
    rows = predictor.read(find_inputs(inputs))
    return [prediction_line(task, row, prediction) for row, prediction in zip(rows, predictor(rows), strict=True)]


def task_of(folder: str) -> Task:
    """The task that a checkpoint was fine-tuned on, according to its configuration.

    For a checkpoint from elsewhere, the first task with the same head. Raises `InputError` if no task has its head.
    """
    from toolkit.transfer.encoders import load_config

    config = load_config(folder)
    if (name := getattr(config, "toolkit_task", None)) in TASKS:
        return TASKS[name]
    architectures = config.architectures or []
    if not architectures and config.model_type == "timm_wrapper" and config.num_labels:  # timm names no class
        architectures = ["TimmWrapperForImageClassification"]
    for task in TASKS.values():
        if any(architecture.endswith(task.auto_class.removeprefix("AutoModel")) for architecture in architectures):
            return task
    raise InputError(
        f"{folder}: holds {' and '.join(architectures) or 'no known model'}, expected a fine-tuned checkpoint; "
        f"make one with: toolkit finetune {'|'.join(TASKS)} --encoder {folder}"
    )
