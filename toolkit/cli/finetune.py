"""Put a task's head on an encoder and train it on labelled data: pos (tags of words), text (labels of texts), image
(labels of images), audio (labels of recordings) or seq2seq (a text from a text).

toolkit finetune pos --encoder runs/elmo --data sample --output_dir runs/tagger
toolkit finetune pos --encoder scratch:runs/elmo --data sample --train_size 50 --output_dir runs/tagger_scratch
toolkit finetune pos --encoder runs/bert --data UD_Finnish-TDT/ --output_dir runs/number --tag_column Number
toolkit finetune pos --encoder runs/bert --data sample --output_dir runs/crf_tagger --head crf
toolkit finetune text --encoder runs/elmo --data reviews.csv --output_dir runs/reviews --learning_rates 1e-3 3e-3
toolkit finetune image --encoder runs/resnet --data x_rays/ --output_dir runs/x_rays --choose_threshold
toolkit finetune image --encoder scratch:timm/convnext_atto --data sample --output_dir runs/digits
toolkit finetune audio --encoder scratch:resnet-mini --data commands/ --output_dir runs/commands
toolkit finetune audio --encoder runs/imagenet --data digits.csv --group_column speaker --output_dir runs/digits
toolkit finetune seq2seq --encoder scratch:lstm-mini --data words.tsv --target_units words --output_dir runs/pronounce
toolkit finetune seq2seq --encoder runs/lstm --data forms.tsv --feature_columns tags --output_dir runs/forms
toolkit finetune text --encoder scratch:bert-tiny --data sample --train_size 10 --per_class --output_dir runs/genres
"""

from collections.abc import Sequence

from tasks import TASKS, FinetuneArguments
from toolkit.cli.flags import parse_kind


def parse(words: Sequence[str]) -> tuple[str, FinetuneArguments]:
    classes = {name: task.arguments for name, task in TASKS.items()}
    return parse_kind(words, "toolkit finetune", "TASK", classes, __doc__)


def run(parsed: tuple[str, FinetuneArguments]) -> None:
    from tasks.finetuning import finetune
    from toolkit.cli.score import show

    name, arguments = parsed
    show(finetune(TASKS[name], arguments))
