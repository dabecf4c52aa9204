"""What every run leaves behind: `results.json`, and the folder it stands in."""

import dataclasses
import json
import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from toolkit.errors import InputError
from toolkit.hub.safety import is_hub_id

RESULTS_FILE = "results.json"
LOG_FILE = "train_log.jsonl"
VERSIONED = ("torch", "transformers", "datasets", "tokenizers", "accelerate", "gensim", "numpy")
_MARK = ".toolkit-run"  # in every folder made here; only such a folder is ever replaced


def check_output_dir(output_dir: str | Path, resume: bool | None = None, overwrite: bool = False) -> Path:
    """Raises `InputError` where the folder cannot take a run, or something would be lost; creates nothing.

    `resume` is None of a command that cannot resume.
    """
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder}: this is a file, expected a folder")
    nearest = nearest_existing(folder)
    if not os.access(nearest, os.W_OK) or not nearest.is_dir():
        raise InputError(f"--output_dir {folder}: cannot be written to, {nearest} does not allow it")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise InputError(f"--output_dir {folder}: the folder holds something else, name an empty or a new one")
        if not resume and not overwrite:
            advice = "" if resume is None else "--resume to go on with it, "
            raise InputError(
                f"--output_dir {folder}: the folder holds an earlier run; add {advice}"
                "--overwrite_output_dir to replace it, or name another"
            )
    return folder


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or the one above it in which it would be made."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def finished_run(arguments: Any) -> dict[str, Any] | None:
    """The record of a run that stands finished in the folder that is to be resumed; None where there is none.

    `arguments` is the dataclass of the run's flags. Raises `InputError` where the finished run had others.
    """
    folder = Path(arguments.output_dir)
    if not (arguments.resume and (folder / RESULTS_FILE).is_file()):
        return None
    record = read_results(folder)
    for field in dataclasses.fields(arguments):
        asked, made_with = getattr(arguments, field.name), record["arguments"].get(field.name, field.default)
        changes_nothing = field.name in ("output_dir", "resume", "overwrite_output_dir", "push_to_hub")
        if asked != made_with and not changes_nothing:
            raise InputError(
                f"--resume: the run in {folder} is finished and was made with --{field.name} {made_with}, "
                f"not {asked}; name another --output_dir"
            )
    return record


def create_output_dir(output_dir: str | Path, overwrite: bool = False) -> Path:
    """Make the folder, empty if `overwrite`; to be called when nothing can be wrong with the input any more."""
    folder = Path(output_dir)
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    return folder


def is_main_process() -> bool:
    """Whether this process writes and prints, by what a launcher says; before any torch is loaded."""
    return os.environ.get("RANK", "0") == "0"


class Stopwatch:
    """Wall-clock seconds and peak memory of a piece of work, from where it is made."""

    def __init__(self):
        self._start = time.monotonic()
        _reset_peak_memory()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def peak_memory_mb(self) -> float:
        """Peak resident memory of this process in MB (10⁶ bytes), since the stopwatch was made where the system can
        tell (Linux), else since the process began; on a GPU the peak of its allocated memory instead."""
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
        try:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
        except OSError:
            pass
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _reset_peak_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def write_results(path: Path, stopwatch: Stopwatch, **fields: Any) -> dict[str, Any]:
    """Write a record, atomically, and return it; what of encoder and data came from a Hub, versions, machine and
    command are added."""
    record = {
        **fields,
        "from_hub": [name for name in (fields.get("encoder"), fields.get("dataset")) if is_hub_id(str(name))],
        "seconds": stopwatch.seconds,
        "peak_memory_mb": stopwatch.peak_memory_mb,
        **made_with(),
        "command": " ".join(["toolkit", *sys.argv[1:]]),
    }
    write_json(path, record)
    return record


def made_with() -> dict[str, Any]:
    """Versions and machine, for a record."""
    import torch  # here, since the folder of a run is looked at before anything slow is imported

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONED}},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), **({"gpus": gpus} if gpus else {})},
    }


def write_json(path: Path, record: Any) -> None:
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all, in a folder that is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def read_results(folder: Path) -> dict[str, Any]:
    """The record of a run. Raises `InputError` where there is none that can be read."""
    try:
        return json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: no {RESULTS_FILE} in this folder, expected a run of this toolkit") from None
    except ValueError as error:
        raise InputError(f"{folder / RESULTS_FILE}: cannot be read ({error}); delete it and repeat the run") from None
