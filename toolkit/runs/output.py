"""The output folder of a run, and files that are written atomically."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import InputError
from toolkit.runs.arguments import Arguments

_MARK = ".toolkit-run"  # a file in every output folder; only a folder that has it is ever overwritten


@dataclass(kw_only=True)
class OutputArguments(Arguments):
    """output"""

    output_dir: str
    """Folder for the model, results.json and the other files of the run."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""


def check_output_dir(output: OutputArguments, resume: bool | None = None) -> Path:
    """Check that a run can be written to its output folder, without creating it. Returns the folder.

    `resume` says whether the run continues an earlier one; None is for a command that cannot. Raises `InputError` if
    the folder cannot be written to, or files in it would be lost.
    """
    folder = Path(output.output_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder}: this is a file, expected a folder")
    nearest = nearest_existing(folder)
    if not os.access(nearest, os.W_OK) or not nearest.is_dir():
        raise InputError(f"--output_dir {folder}: cannot be written to, {nearest} does not allow it")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise InputError(f"--output_dir {folder}: the folder holds something else, name an empty or a new one")
        if not resume and not output.overwrite_output_dir:
            advice = "" if resume is None else "--resume to go on with it, "
            advice += "--overwrite_output_dir to replace it, or name another"
            raise InputError(f"--output_dir {folder}: the folder holds an earlier run; add {advice}")
    return folder


def create_output_dir(output: OutputArguments, resume: bool | None = None) -> Path:
    """Create the folder, and empty it if it is to be overwritten. Call it after everything else has been checked."""
    folder = Path(output.output_dir)
    if output.overwrite_output_dir and not resume and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    return folder


def nearest_existing(folder: Path) -> Path:
    """The folder if it exists, else the nearest folder above it that does."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def write_json(path: Path, record: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: after a crash the old file or the new one is there. Its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
