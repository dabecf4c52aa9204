"""`results.json`, the record of a run: how it is written, read, and compared with the flags of a resumed run."""

import contextlib
import dataclasses
import json
import os
import platform
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from toolkit.errors import InputError
from toolkit.runs.arguments import flags_of, to_flags
from toolkit.runs.output import write_json

RESULTS_FILE = "results.json"
LOG_FILE = "train_log.jsonl"
PREDICTIONS_FILE = "predictions.jsonl"
VERSIONED = ("torch", "transformers", "datasets", "tokenizers", "accelerate", "gensim", "numpy")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  # the name of a repository of a Hub
MAY_DIFFER = ("output_dir", "resume", "overwrite_output_dir", "push_to_hub")  # flags, when a finished run is resumed


def finished_run(arguments: Any) -> dict[str, Any] | None:
    """The record in the output folder if `--resume` is given and the run there is finished, else None.

    Raises `InputError` if the finished run was made with other flags, or by another command.
    """
    flags = to_flags(arguments)
    folder = Path(flags["output_dir"])
    if not (flags.get("resume") and (folder / RESULTS_FILE).is_file()):
        return None
    record = read_results(folder)
    defaults = {name: flag.default for name, flag in flags_of(type(arguments)).items()}
    for name, asked in flags.items():
        made_with = record["arguments"].get(name, defaults.get(name))
        if made_with is dataclasses.MISSING:
            raise InputError(f"--resume: {folder} holds the run of another command; name another --output_dir")
        if asked != made_with and name not in MAY_DIFFER:
            raise InputError(
                f"--resume: the run in {folder} is finished and was made with --{name} {made_with}, "
                f"not {asked}; name another --output_dir"
            )
    return record


def say_finished(output_dir: str) -> None:
    """Say that the record of a run is an old one."""
    what = f"the run in {output_dir} was finished before, this is its record; nothing is trained"
    print(what, file=sys.stderr, flush=True)


def is_main_process() -> bool:
    """Whether this process writes files and prints, by the rank that the launcher gave it."""
    return os.environ.get("RANK", "0") == "0"


class Stopwatch:
    """Measure wall-clock seconds and peak memory from its creation on."""

    def __init__(self):
        self._start = time.monotonic()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def peak_memory_mb(self) -> float:
        """Peak memory in MB (10⁶ bytes): allocated on the GPU if there is one, else resident in this process.

        On Linux since the stopwatch was created, elsewhere since the process started.
        """
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
        try:
            import resource
        except ImportError:  # Windows
            import psutil

            return psutil.Process().memory_info().peak_wset / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def write_results(path: Path, stopwatch: Stopwatch, **fields: Any) -> dict[str, Any]:
    """Write a record: its fields, which names are of a Hub, seconds, peak memory, machine, command. Returns it."""
    program = Path(sys.argv[0])
    command = f"python scripts/{program.name}" if program.parent.name == "scripts" else "toolkit"
    record = {
        **fields,
        "from_hub": [name for name in (fields.get("encoder"), fields.get("dataset")) if is_hub_id(str(name))],
        "seconds": stopwatch.seconds,
        "peak_memory_mb": stopwatch.peak_memory_mb,
        **made_with(),
        "command": " ".join([command, *sys.argv[1:]]),
    }
    write_json(path, record)
    return record


def write_score(output_file: Path, stopwatch: Stopwatch, *, is_main: bool = True, **fields: Any) -> dict[str, Any]:
    """Write the record of an evaluation without training, if this is the main process. Returns the record."""
    record: dict[str, Any] = {"seed": None, "num_steps": 0}
    record |= {"throughput": fields["n"] / stopwatch.seconds, "throughput_unit": "examples/s", "deterministic": True}
    record |= fields
    return write_results(output_file, stopwatch, **record) if is_main else record


def is_hub_id(name: str) -> bool:
    """Whether a name is `org/name`, perhaps with a revision or configuration, and no local file or folder."""
    return bool(re.fullmatch(rf"{REPOSITORY.pattern}([@:][\w./-]+)?", name)) and not Path(name).exists()


def made_with() -> dict[str, Any]:
    """The fields `versions` and `machine` of a record."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONED}},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), **({"gpus": gpus} if gpus else {})},
    }


def read_results(folder: Path) -> dict[str, Any]:
    """Read the record of a run. Raises `InputError` if it is missing or malformed."""
    try:
        return json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: no {RESULTS_FILE} in this folder, expected a run of this toolkit") from None
    except ValueError as error:
        raise InputError(f"{folder / RESULTS_FILE}: cannot be read ({error}); delete it and repeat the run") from None
