"""Say in one table what pretraining bought: several encoders, each beside its scratch twin, at several label budgets.

toolkit compare --task pos --encoders runs/word2vec runs/elmo runs/bert --data sample --output_dir runs/compare
toolkit compare --encoders runs/elmo --data UD_English-EWT/ --train_sizes 100 500 all --seeds 3 --output_dir runs/ewt
toolkit compare --task text --encoders runs/elmo --data trec/ --train_sizes 10 all --per_class --output_dir runs/trec
"""

import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from tasks import TASKS, FinetuneArguments
from tasks.words import WordsArguments
from toolkit.cli.flags import parse_flags
from toolkit.errors import InputError, check_positive
from toolkit.pretraining.arguments import ImageChange
from toolkit.training.arguments import TrainingArguments


@dataclass(kw_only=True)
class CompareArguments(TrainingArguments):
    encoders: list[str]
    """Folders of pretrained encoders."""
    data: str
    """Labelled data: a folder with one file a split, a Hub id, or 'sample'."""
    output_dir: str
    """Folder for one folder a run, results.json and report.html."""
    task: Literal["pos", "text", "image"] = "pos"
    """pos: tags of words; text: labels of texts; image: labels of images."""
    push_to_hub: str | None = field(init=False, default=None)  # there is no one model to send
    seed: int = field(init=False, default=0)  # from --seeds
    learning_rate: float = field(init=False, default=TrainingArguments.learning_rate)  # from --learning_rates
    train_sizes: list[str] = field(default_factory=lambda: ["50", "all"])
    """Label budgets: numbers of training examples, or 'all'."""
    per_class: bool = False
    """The numbers count examples of each class; a class that has fewer gives all."""
    seeds: int = 3
    """Fine-tune with this many seeds, from 0."""
    subset_each_seed: bool = False
    """Each seed has its own --train_sizes examples, so that what depends on their choice shows (default: all seeds
    have the same)."""
    learning_rates: list[float] = field(default_factory=lambda: [1e-3, 3e-3])
    """Short list from which validation data chooses for each encoder, twin and budget."""
    baseline: bool = False
    """Also train the usual method without a network: a CRF for pos, logistic regression for text (on TF-IDF) and for
    images."""
    head: Literal["linear", "crf"] = "linear"
    """Head of pos taggers."""
    freeze: bool = False
    """Train the heads only."""
    probe_ratio: float = FinetuneArguments.probe_ratio
    """Share of each run in which the head is trained alone, before a pretrained encoder joins."""
    bottom_rate: float = FinetuneArguments.bottom_rate
    """Share of the learning rate at which the lowest layer of a pretrained encoder learns."""
    word_dropout: float = WordsArguments.word_dropout
    """Replace words of the training examples by the unknown word with this probability."""
    tag_column: str | None = None
    """Column of the tags (default: upos)."""
    token_column: str | None = None
    """Column of a table that holds the words (default: tokens or words)."""
    text_column: str | None = None
    """Column of a table that holds the text (default: text, sentence, content or document)."""
    label_column: str | None = None
    """Column of a table that holds the label (default: label, labels, category or class)."""
    image_column: str | None = None
    """Column of a table that holds images or their paths (default: the one of images, or image, file_name or path)."""
    figure: Literal["accuracy", "roc_auc"] | None = None
    """Of images, what encoders are compared by, and learning rates and checkpoints chosen (default: accuracy)."""
    labels: list[str] | None = None
    """Take the images of these labels only (default: of all)."""
    image_size: int | None = None
    """Height and width that all images are given (default: those of the encoder)."""
    keep_size: bool = False
    """Let images stay as large as they are; goes with --pooling."""
    pooling: Literal["max", "average", "l2", "gem"] | None = None
    """Of a convolutional network, what becomes of the values of a map (default: what the network does itself)."""
    augment: list[ImageChange] | None = None
    """How training images are changed at random (default: shift)."""
    class_weights: bool = False
    """Of images, let rare labels count for more, all labels alike together."""
    resume: bool = False
    """Go on with a comparison that was stopped; runs that are finished stay as they are."""
    overwrite_output_dir: bool = False
    """Replace an earlier comparison in the output folder."""

    def __post_init__(self):
        super().__post_init__()
        for size in self.train_sizes:
            if size != "all" and not (size.isdigit() and int(size) > 0):
                raise InputError(f"--train_sizes {size}: expected a number greater than zero, or 'all'")
        check_positive(self, "seeds")
        flags = {name: {flag.name for flag in fields(task.arguments_class)} for name, task in TASKS.items()}
        of_others = set().union(*flags.values()) - flags[self.task]
        for flag in fields(self):
            value = getattr(self, flag.name)
            if flag.name in of_others and value != flag.default:
                raise InputError(f"--{flag.name} {value}: does not go with --task {self.task}")
        names = [Path(encoder).name for encoder in self.encoders]
        if len(set(names)) < len(names):
            raise InputError(f"--encoders {' '.join(self.encoders)}: two folders have the same name")


def parse(arguments: list[str]) -> CompareArguments:
    return parse_flags(arguments, CompareArguments, "toolkit compare", __doc__)


def run(arguments: CompareArguments) -> None:
    from tasks.base import load_splits
    from tasks.comparison import compare
    from toolkit.reports import page as report
    from toolkit.reports.results import check_output_dir, create_output_dir, is_main_process
    from toolkit.training.distributed import make_accelerator
    from toolkit.transfer.encoders import load_config

    for encoder in arguments.encoders:
        load_config(encoder)
    root = check_output_dir(arguments.output_dir, arguments.resume, arguments.overwrite_output_dir)
    task = TASKS[arguments.task]
    given = {field.name: getattr(arguments, field.name, None) for field in fields(task.arguments_class)}
    given |= {"encoder": "", "learning_rates": None, "overwrite_output_dir": False}
    shared = task.arguments_class(**{name: value for name, value in given.items() if value is not None})
    if arguments.subset_each_seed and not {"validation", "test"} & set(task.splits(arguments.data)):
        raise InputError(
            f"--subset_each_seed: {arguments.data} has no split to test on, expected a test or validation split that "
            "stays the same while the training examples change"
        )
    train_sizes = [None if size == "all" else int(size) for size in arguments.train_sizes]
    load_splits(task, replace(shared, train_size=max((size for size in train_sizes if size), default=None)))
    make_accelerator().wait_for_everyone()  # every process has looked before the main one writes
    if is_main_process():
        create_output_dir(root, arguments.overwrite_output_dir and not arguments.resume)
    record = compare(
        task,
        {Path(encoder).name: encoder for encoder in arguments.encoders},
        shared,
        train_sizes,
        range(arguments.seeds),
        arguments.learning_rates,
        with_baseline=arguments.baseline,
        subset_each_seed=arguments.subset_each_seed,
        say=lambda message: print(message, file=sys.stderr, flush=True) if is_main_process() else None,
    )
    if not is_main_process():
        return
    heading = f"{arguments.task} on {arguments.data}"
    report.write_html({heading: record}, root / "report.html", f"What pretraining bought: {heading}")
    print(report.as_text(report.turned(*report.table(record))))
    print(*report.conclusions(record), f"The report, with plots: {root / 'report.html'}", sep="\n")
