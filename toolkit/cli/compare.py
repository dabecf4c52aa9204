"""Say in one table what pretraining bought: several encoders, each beside the same network from scratch, at several
label budgets. The flags are those of the comparison and of toolkit finetune for the --task.

toolkit compare --task pos --encoders runs/word2vec runs/elmo runs/bert --data sample --output_dir runs/compare
toolkit compare --encoders runs/elmo --data UD_English-EWT/ --train_sizes 100 500 all --seeds 3 --output_dir runs/ewt
toolkit compare --task text --encoders runs/elmo --data trec/ --train_sizes 10 all --per_class --output_dir runs/trec
toolkit compare --task image --encoders runs/resnet --data photos/ --train_sizes 5 --per_class --output_dir runs/photos
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks import TASKS
from tasks.task import FinetuneArguments
from toolkit.cli.flags import parse_several
from toolkit.errors import InputError, check_positive
from toolkit.runs.arguments import Arguments, flags_of, with_flags

DEFAULT_TASK = "pos"
# Flags of fine-tuning that the comparison sets itself.
SET_BY_COMPARISON = ("encoder", "train_size", "subset_seed", "seed", "learning_rate", "learning_rates", "push_to_hub")


@dataclass(kw_only=True)
class ComparisonArguments(Arguments):
    """comparison"""

    encoders: list[str]
    """Folders of pretrained encoders."""
    task: str = DEFAULT_TASK
    """Task of toolkit finetune: pos (tags of words), text (labels of texts), image (labels of images), audio (labels
    of recordings), seq2seq (a text from a text)."""
    train_sizes: list[str] = field(default_factory=lambda: ["50", "all"])
    """Label budgets: numbers of training examples, or 'all'."""
    seeds: int = 3
    """Fine-tune with this many seeds, from 0."""
    subset_each_seed: bool = False
    """Give each seed labelled examples of its own, so that the effect of their choice shows (default: all seeds have
    the same)."""
    learning_rates: list[float] = field(default_factory=lambda: [1e-3, 3e-3])
    """Short list from which validation data chooses for each encoder, pretrained and from scratch, at each budget."""
    baseline: bool = False
    """Also run the usual method without a network: a CRF for pos, logistic regression for text (on TF-IDF), for
    images (on pixels) and for recordings (on statistics of MFCCs)."""
    num_proc: int = 1
    """Runs that are trained at the same time, in processes with one thread each; 1 is one run at a time with all
    threads. Several are faster for small encoders on a CPU."""

    def check(self) -> None:
        for size in self.train_sizes:
            if size != "all" and not (size.isdigit() and int(size) > 0):
                raise InputError(f"--train_sizes {size}: expected a number greater than zero, or 'all'")
        check_positive(self, "seeds num_proc")
        names = [Path(encoder).name for encoder in self.encoders]
        if len(set(names)) < len(names):
            raise InputError(f"--encoders {' '.join(self.encoders)}: two folders have the same name")


def parse(words: Sequence[str]) -> tuple[ComparisonArguments, FinetuneArguments]:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--task", nargs="?", default=DEFAULT_TASK, const=DEFAULT_TASK)
    name = first.parse_known_args(words)[0].task
    if name not in TASKS:
        raise InputError(f"--task {name}: expected one of {', '.join(TASKS)}")
    _refuse_flags_of_other_tasks(words, name)
    classes: dict[type, Sequence[str]] = {ComparisonArguments: (), TASKS[name].arguments: SET_BY_COMPARISON}
    comparison, finetuning = parse_several(words, classes, "toolkit compare", __doc__, given={"encoder": ""})
    return comparison, finetuning


def _refuse_flags_of_other_tasks(words: Sequence[str], name: str) -> None:
    known = {*flags_of(TASKS[name].arguments), *flags_of(ComparisonArguments)}
    of_others = {flag for task in TASKS.values() for flag in flags_of(task.arguments)} - known
    for place, word in enumerate(words):
        flag, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and flag in of_others:
            value = value if equals else " ".join(words[place + 1 : place + 2])
            raise InputError(f"--{flag} {value}: does not go with --task {name}")


def run(parsed: tuple[ComparisonArguments, FinetuneArguments]) -> None:
    from tasks.comparison import Grid, compare
    from tasks.finetuning import load_splits
    from tasks.parallel import check_num_proc
    from toolkit.runs import page, tables
    from toolkit.runs.output import check_output_dir, create_output_dir
    from toolkit.runs.results import is_main_process
    from toolkit.training.distributed import make_accelerator
    from toolkit.transfer.encoders import load_config

    flags, arguments = parsed
    task, data = TASKS[flags.task], arguments.data.data
    for encoder in flags.encoders:
        load_config(encoder)
    check_num_proc(flags.num_proc)
    root = check_output_dir(arguments.output, arguments.training.resume)
    source = task.open(data, arguments.columns)
    if flags.subset_each_seed and not {"validation", "test"} & set(source.splits):
        raise InputError(
            f"--subset_each_seed: {data} has no split to test on, expected a test or validation split that "
            "stays the same while the training examples change"
        )
    train_sizes = [None if size == "all" else int(size) for size in flags.train_sizes]
    sizes = [size for size in train_sizes if size]
    load_splits(task, with_flags(arguments, train_size=max(sizes, default=None)), source)
    make_accelerator().wait_for_everyone()  # all processes check the folder before the main process writes to it
    if is_main_process():
        create_output_dir(arguments.output, arguments.training.resume)
        source.summary.say()
    grid = Grid(
        source,
        {Path(encoder).name: encoder for encoder in flags.encoders},
        train_sizes,
        range(flags.seeds),
        flags.learning_rates,
        flags.subset_each_seed,
        flags.baseline,
        flags.num_proc,
        lambda message: print(message, file=sys.stderr, flush=True) if is_main_process() else None,
    )
    record = compare(task, grid, with_flags(arguments, overwrite_output_dir=False))
    if not is_main_process():
        return
    heading = f"{flags.task} on {data}"
    page.write_html({heading: record}, root / "report.html", f"What pretraining bought: {heading}")
    print(tables.as_text(tables.table(record)))
    print(*tables.conclusions(record), f"The report, with plots: {root / 'report.html'}", sep="\n")
