"""Check this machine, and with --hub the Hub, and say what to do where something fails; or say how data is read.

toolkit doctor
toolkit doctor --data reviews/
toolkit doctor --data photos/ --task image
toolkit doctor --hub
HF_ENDPOINT=https://hub.example.org HF_TOKEN=… toolkit doctor --hub
"""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, get_type_hints

from toolkit.cli.flags import parse_flags
from toolkit.data.sources import Source
from toolkit.errors import InputError, RunFailed, first_line
from toolkit.runs.arguments import Arguments
from toolkit.runs.output import nearest_existing

PACKAGE = "pretrain-transfer-toolkit"
NAMED = ("torch", "transformers", "datasets", "accelerate", "huggingface-hub")  # whose versions are printed
MIN_FREE_BYTES = 5e9  # with less, checkpoints of small encoders soon do not fit
SECONDS_FOR_PROCESSES = 120
ROWS_SHOWN, WIDTH = 3, 200  # of each split, and characters of an example


@dataclass(kw_only=True)
class DoctorArguments(Arguments):
    """flags"""

    hub: bool = False
    """Also send to the Hub of HF_ENDPOINT and pull from it, in a private repository that is deleted afterwards."""
    data: str | None = None
    """Do not check the machine; say how this source would be read: its splits, files, labels and first rows, and what
    would be left out."""
    task: str | None = None
    """Task that --data is for (default: all tasks that can read it, and pretraining on text)."""

    def check(self) -> None:
        if self.task is not None and self.data is None:
            raise InputError(f"--task {self.task}: goes with --data")


def parse(words: Sequence[str]) -> DoctorArguments:
    return parse_flags(words, DoctorArguments, "toolkit doctor", __doc__)


def run(arguments: DoctorArguments) -> None:
    if arguments.data is not None:
        _show_data(arguments.data, arguments.task)
        return
    checks = (versions, devices, processes, disk, caches)
    failed = [check.__name__ for check in checks if not _passes(check.__name__, check)]
    if arguments.hub:
        failed += _check_hub()
    if failed:
        raise RunFailed(f"failed: {', '.join(failed)}; each line above says what to do")


def _show_data(name: str, task_name: str | None) -> None:
    """Print how tasks and pretraining read a source. Raises `InputError` if none can."""
    from tasks import TASKS
    from toolkit.corpora.text import open_text
    from toolkit.data.audio_files import AUDIO
    from toolkit.data.image_files import IMAGES

    if task_name is not None and task_name not in TASKS:
        raise InputError(f"--task {task_name}: expected one of {', '.join(TASKS)}")
    readers: dict[str, Callable[[], list[str]]] = {
        f"toolkit finetune {task.name}": partial(_describe_labelled, task, name)
        for task in TASKS.values()
        if task_name in (None, task.name)
    }
    if task_name is None:
        readers["pretraining on text"] = lambda: _describe(open_text(name), lambda row: repr(row["text"][:WIDTH]))
        for files in (IMAGES, AUDIO):
            opened = partial(files.open_unlabelled, name)
            readers[f"pretraining on {files.noun}s"] = partial(_describe_files, opened)
    refused = {}
    for reader, describe in readers.items():
        try:
            lines = describe()
        except InputError as error:
            refused[reader] = str(error)
        else:
            print(f"{reader}:\n{textwrap.indent(chr(10).join(lines), '  ')}")
    if len(refused) == len(readers):
        raise InputError("; ".join(dict.fromkeys(refused.values())))
    for reader, reason in refused.items():
        print(f"{reader}: cannot read it ({reason})")


def _describe_files(opened: Callable[[], Source]) -> list[str]:
    return _describe(opened(), lambda row: row["name"])


def _describe_labelled(task: Any, name: str) -> list[str]:
    def show(row: dict[str, Any]) -> str:
        return f"{task.title(row)[:WIDTH]!r}: {row[task.reference_column]!r}"

    return _describe(task.open(name, get_type_hints(task.arguments)["columns"]()), show, task.counted)


def _describe(
    source: Source, show: Callable[[dict[str, Any]], str], counted: Callable[[Any], list[Any] | None] | None = None
) -> list[str]:
    """Lines that say how a source is read: its splits, what is left out, and the first rows of each split."""
    shown = []
    for split in source.splits or (None,):
        rows, name = source.load(split), split or "train"
        num_repeated, labels = (0, None) if counted is None else (source.num_repeated(name), counted(rows))
        source.summary.add(name, rows, labels, num_repeated=num_repeated)
        first = rows.select(range(min(ROWS_SHOWN, len(rows))))
        shown += [f"{name}, row {number}: {show(row)}" for number, row in enumerate(first, start=1)]
    return [*source.summary.lines(), *shown]


def _check_hub() -> list[str]:
    """The names of the checks that failed; those after the first one are skipped, except for the clean-up."""
    from toolkit.hub.round_trip import RoundTrip

    round_trip, failed = RoundTrip(), list[str]()
    try:
        for name, step in round_trip.steps.items():
            if failed:
                _show("skipped", name, f"since {failed[0]} failed")
            elif not _passes(name, step):
                failed.append(name)
    finally:
        if round_trip.repo_id and not _passes("clean-up", round_trip.clean_up):
            failed.append("clean-up")
    return failed


def _passes(name: str, check: Callable[[], str]) -> bool:
    """Whether a check succeeds, which is printed with what it found."""
    try:
        outcome, message = "ok", check()
    except (InputError, RunFailed) as error:
        outcome, message = "failed", " ".join(str(error).split())
    except Exception as error:
        outcome, message = "failed", f"{type(error).__name__}: {first_line(error)}"
    _show(outcome, name, message)
    return outcome == "ok"


def _show(outcome: str, name: str, message: str) -> None:
    print(f"{outcome:<8}{name:<14}{message}", flush=True)


def versions() -> str:
    """Check that every package that the toolkit requires is installed in a version that it accepts."""
    from packaging.requirements import Requirement

    wrong, found = [], []
    for requirement in map(Requirement, requires(PACKAGE) or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed}, expected {requirement.specifier}")
        if requirement.name in NAMED:
            found.append(f"{requirement.name} {installed}")
    if wrong:
        raise RunFailed(f"{'; '.join(wrong)}; try: pip install --upgrade {PACKAGE}")
    return f"python {sys.version.split()[0]}, {', '.join(found)}"


def devices() -> str:
    """Describe CPUs and GPUs; a GPU that torch cannot use is an error."""
    import torch

    from toolkit.runs.threads import describe_spinning
    from toolkit.training.distributed import knows_bfloat16

    cpu = torch.device("cpu")
    found = [f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads ({describe_spinning()})"]
    found.append(f"bfloat16 on the CPU {'is fast' if knows_bfloat16(cpu) else 'is slow: leave --bf16 out'}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            torch.ones(8, device=f"cuda:{index}").sum().item()
            found.append(f"GPU {index}: {properties.name}, {properties.total_memory / 1e9:.0f} GB")
    elif shutil.which("nvidia-smi") and torch.version.cuda is None:
        raise RunFailed(
            "there is a GPU, but this torch is built without CUDA; install torch for your CUDA from pytorch.org"
        )
    elif torch.accelerator.is_available():
        found.append(str(torch.accelerator.current_accelerator()))
    else:
        found.append("no GPU")
    return ", ".join(found)


def processes() -> str:
    """Let torchrun start two processes that add up their ranks, by running this module as a script."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    advice = "try GLOO_SOCKET_IFNAME=lo, and see whether a firewall keeps them apart"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        environment.pop(name, None)
    output: Any = {"capture_output": True, "text": True, "timeout": SECONDS_FOR_PROCESSES, "env": environment}
    try:
        done = subprocess.run([*torchrun, "-m", __name__], **output)
    except subprocess.TimeoutExpired:
        raise RunFailed(f"two processes did not find one another in {SECONDS_FOR_PROCESSES} s; {advice}") from None
    if "the ranks add up to 1" not in done.stdout:
        last_line = done.stderr.strip().rpartition("\n")[2][:200]
        raise RunFailed(f"two processes of torchrun cannot work together ({last_line}); {advice}")
    return "two processes of torchrun work together"


def disk() -> str:
    places = {"here": Path.cwd(), "for temporary files": Path(tempfile.gettempdir())}
    free = {where: shutil.disk_usage(path).free for where, path in places.items()}
    for where, size in free.items():
        if size < MIN_FREE_BYTES:
            place = places[where]
            raise RunFailed(f"{size / 1e9:.1f} GB free {where} ({place}); delete old checkpoints, or set TMPDIR")
    return ", ".join(f"{size / 1e9:.0f} GB free {where}" for where, size in free.items())


def caches() -> str:
    import datasets
    from huggingface_hub import constants

    found = []
    for name, folder in (("Hub", constants.HF_HUB_CACHE), ("datasets", datasets.config.HF_DATASETS_CACHE)):
        path = Path(folder)
        if not os.access(nearest_existing(path), os.W_OK):
            raise RunFailed(f"the cache of the {name} in {path} cannot be written to; set HF_HOME to another folder")
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        found.append(f"{name} {size / 1e9:.1f} GB in {path}")
    return ", ".join(found)


if __name__ == "__main__":  # one of the two processes of `processes`
    import torch

    torch.distributed.init_process_group("gloo")
    total = torch.tensor(float(torch.distributed.get_rank()))
    torch.distributed.all_reduce(total)
    if torch.distributed.get_rank() == 0:
        print(f"the ranks add up to {int(total)}")
    torch.distributed.destroy_process_group()
