"""Put a task's head on an encoder and train it on labelled data: pos.

toolkit finetune pos --encoder runs/elmo --data sample --output_dir runs/tagger
toolkit finetune pos --encoder scratch:runs/elmo --data sample --train_size 50 --output_dir runs/tagger_scratch
toolkit finetune pos --encoder runs/bert --data UD_Finnish-TDT/ --output_dir runs/number --tag_column Number
toolkit finetune pos --encoder scratch:bert-tiny --data sample --output_dir runs/from_nothing
"""

from tasks import TASKS, FinetuneArguments, finetune
from toolkit.flags import parse_flags, parse_kind


def parse(arguments: list[str]) -> tuple[str, FinetuneArguments]:
    task, flags = parse_kind(arguments, "toolkit finetune", "TASK", list(TASKS), __doc__)
    return task, parse_flags(flags, FinetuneArguments, f"toolkit finetune {task}", __doc__)


def run(parsed: tuple[str, FinetuneArguments]) -> None:
    from toolkit.commands.score import show

    name, arguments = parsed
    show(finetune(TASKS[name], arguments))
