"""Downstream tasks, one file each. Importing them loads no torch."""

from tasks.base import FinetuneArguments, Task, finetune, load_predictor, score
from tasks.pos_tagging import PosTagging
from toolkit.errors import InputError

TASKS: dict[str, Task] = {"pos": PosTagging()}

__all__ = ["TASKS", "FinetuneArguments", "Task", "finetune", "load_predictor", "score", "task_of"]


def task_of(folder: str) -> Task:
    """The task that a checkpoint was fine-tuned on, by the head it has. Raises `InputError`."""
    from toolkit.encoders import load_config

    architectures = load_config(folder).architectures or []
    for task in TASKS.values():
        if any(name.endswith(task.head) for name in architectures):
            return task
    raise InputError(
        f"{folder}: holds {' and '.join(architectures) or 'no known model'}, expected a fine-tuned checkpoint; "
        f"make one with: toolkit finetune {'|'.join(TASKS)} --encoder {folder}"
    )
