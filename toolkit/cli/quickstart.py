"""See in minutes what pretraining buys: three text encoders on two tasks, an image encoder on one, a table per task.

toolkit quickstart
toolkit quickstart --output_dir runs/first_look
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.cli.flags import parse_flags
from toolkit.errors import Interrupted, check_positive
from toolkit.runs.arguments import Arguments, from_flags
from toolkit.runs.output import OutputArguments, claimed

LABEL_BUDGETS = (50, None)  # training sentences; None is all
SEEDS = (0, 1, 2)
LEARNING_RATES = (1e-3, 1e-2)
TEXT_LEARNING_RATES = (3e-3,)
FINETUNING: dict[str, Any] = {"max_steps": 100, "batch_size": 16, "eval_steps": 25, "logging_steps": 25}
PRETRAINING: dict[str, dict[str, Any]] = {
    "word2vec": {"preset": "word2vec-tiny", "min_count": 3, "num_train_epochs": 10, "workers": 1},
    "elmo": {"preset": "elmo-tiny", "max_steps": 750, "num_negatives": 1024, "logging_steps": 25},
    "bert": {"preset": "bert-tiny", "max_steps": 600, "logging_steps": 25, "learning_rate": 2e-3},
}
SEEN_DIGITS, NEW_DIGITS = list("01234"), list("56789")
IMAGE_PRETRAINING = {"preset": "resnet-tiny", "image_size": 16, "max_steps": 200, "learning_rate": 1e-2}
IMAGE_BUDGETS = (2, 10)  # images of each new digit
IMAGE_LEARNING_RATES = (3e-3, 1e-2)
NEXT = """\
Next, on your own text and labels:

  toolkit pretrain elmo --corpus my_texts/ --output_dir runs/my_elmo --max_minutes 20
  toolkit finetune pos --encoder runs/my_elmo --data my_treebank/ --output_dir runs/my_tagger
  toolkit predict runs/my_tagger 'A sentence of your own.'"""


@dataclass(kw_only=True)
class QuickstartArguments(Arguments):
    """flags"""

    output_dir: str = "runs/quickstart"
    """Folder for the encoders, the taggers and report.html; an earlier quickstart in it is replaced."""
    budget: float = 1.0
    """Fraction of the usual steps, for a quick look at how it works; below 1 the figures mean nothing."""
    num_proc: int | None = None
    """Runs that are fine-tuned at the same time, in processes with one thread each (default: one for each core without
    a GPU, at most eight)."""

    def check(self) -> None:
        check_positive(self, "budget num_proc")


def parse(words: Sequence[str]) -> QuickstartArguments:
    return parse_flags(words, QuickstartArguments, "toolkit quickstart", __doc__)


def run(arguments: QuickstartArguments) -> None:
    output = OutputArguments(output_dir=arguments.output_dir, overwrite_output_dir=True)
    try:
        with claimed(output):
            _run(arguments, output)
    except Interrupted as interruption:
        raise Interrupted(
            "stopped; the quickstart starts anew when it is run again", interruption.signal_number
        ) from None


def _run(arguments: QuickstartArguments, output: OutputArguments) -> None:
    from importlib.util import find_spec

    from tasks import TASKS
    from tasks.comparison import Grid, compare
    from tasks.parallel import check_num_proc, default_num_proc
    from toolkit.pretraining import pretrain
    from toolkit.runs import page, tables
    from toolkit.runs.output import check_output_dir, create_output_dir

    start = time.monotonic()

    def say(message: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - start), 60)
        print(f"[{minutes}:{seconds:02d}] {message}", file=sys.stderr, flush=True)

    num_proc = arguments.num_proc or default_num_proc()
    check_num_proc(num_proc)
    check_output_dir(output)
    root = create_output_dir(output)
    encoders: dict[str, str] = {}
    for method, flags in PRETRAINING.items():
        say(f"pretraining {method} on the sample text ({len(encoders) + 1} of {len(PRETRAINING)})")
        encoders[method] = str(root / method)
        pretrain(method, corpus="sample", output_dir=encoders[method], **_shortened(flags, arguments.budget))
    say("fine-tuning taggers on the sample treebank")
    finetuning = _shortened(FINETUNING, arguments.budget)

    def compared(task: str, encoders: dict[str, str], budgets, rates, **flags: Any) -> dict[str, Any]:
        flags = {"encoder": "", "data": "sample", "output_dir": str(root / task), **finetuning, **flags}
        of_task = from_flags(TASKS[task].arguments, **flags)
        source = TASKS[task].open(of_task.data.data, of_task.columns)
        grid = Grid(source, encoders, budgets, SEEDS, rates, num_proc=num_proc, say=say)
        return compare(TASKS[task], grid, of_task)

    record = compared("pos", encoders, LABEL_BUDGETS, LEARNING_RATES)
    say("fine-tuning classifiers of the sample's genres")
    genres = compared("text", encoders, LABEL_BUDGETS[-1:], TEXT_LEARNING_RATES)
    comparisons = {"Part-of-speech tagging": record, "The genre of a sentence": genres}
    notes = _notes(record)
    if find_spec("torchvision") and find_spec("sklearn"):
        say(f"pretraining a ResNet on the handwritten digits {', '.join(SEEN_DIGITS)}")
        resnet = {"resnet": str(root / "resnet")}
        flags = _shortened(IMAGE_PRETRAINING, arguments.budget)
        pretrain("resnet", corpus="sample", labels=SEEN_DIGITS, output_dir=resnet["resnet"], **flags)
        say(f"fine-tuning it to tell {', '.join(NEW_DIGITS)} apart")
        comparisons["Handwritten digits that pretraining never saw"] = compared(
            "image", resnet, IMAGE_BUDGETS, IMAGE_LEARNING_RATES, labels=NEW_DIGITS, per_class=True
        )
    else:
        notes.append("Images are left out, they need: pip install 'pretrain-transfer-toolkit[images]'")
    file = root / "report.html"
    page.write_html(comparisons, file, "What pretraining bought", notes)
    say("done")
    for heading, comparison in comparisons.items():
        print(f"\n{heading}, accuracy in % on {comparison['n']} test examples\n")
        print(tables.as_text(tables.table(comparison)))
    print(f"\nmeans of seeds {SEEDS} with 95% intervals; * excludes 0")
    print(*notes, f"\nThe report, with plots and test examples: {file}\n\n{NEXT}", sep="\n")


def _shortened(flags: dict[str, Any], budget: float) -> dict[str, Any]:
    """The same flags with this fraction of the steps or epochs."""
    limits = {name: flags[name] for name in ("max_steps", "num_train_epochs") if name in flags}
    return flags | {name: max(1, round(limit * budget)) for name, limit in limits.items()}


def _notes(record: dict) -> list[str]:
    """For each encoder whose pretraining did not help with the fewest labels, a sentence that says why."""
    from toolkit.runs.tables import is_significant

    notes = []
    for encoder in record["encoders"]:
        fewest = encoder["budgets"][0]
        if is_significant(fewest["gain"]) and fewest["gain"]["value"] > 0:
            continue
        pretraining, of_bert = encoder["pretraining"], ""
        if encoder["name"] == "bert":
            share = pretraining["arguments"]["mlm_probability"]
            of_bert = f"It learns from {share:.0%} of the tokens that it reads, the others from all. "
        notes.append(
            f"{encoder['name']} gained nothing certain with {fewest['name']}: "
            f"{pretraining['training_seconds']:.0f} s of pretraining brought its held-out loss to "
            f"{pretraining['metrics']['loss']['value']:.2f} nats, too little to learn much beyond word frequencies. "
            f"{of_bert}Give it more text and minutes: toolkit pretrain --help."
        )
    return notes
