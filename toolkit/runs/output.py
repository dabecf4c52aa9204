"""The output folder of a run, and files that are written atomically."""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.errors import InputError
from toolkit.runs.arguments import Arguments

SECONDS_TO_CLAIM = 5  # for which the workers of a run that was killed may still live
_MARK = ".toolkit-run"  # a file in every output folder; only a folder that has it is ever overwritten
_VERSION = "toolkit"  # key of the version in it


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
        if not is_run(folder):
            raise InputError(f"--output_dir {folder}: the folder holds something else, name an empty or a new one")
        if not resume and not output.overwrite_output_dir:
            advice = "" if resume is None else "--resume to go on with it, "
            advice += "--overwrite_output_dir to replace it, or name another"
            raise InputError(f"--output_dir {folder}: the folder holds an earlier run; add {advice}")
    return folder


def check_inputs_stay(output: OutputArguments, flags: dict[str, Any]) -> None:
    """Raises `InputError` if overwriting the output folder would delete a file or folder that a flag names."""
    folder = Path(output.output_dir).expanduser().resolve()
    for name, value in flags.items() if output.overwrite_output_dir else ():
        for word in value if isinstance(value, list) else [value]:
            if name == "output_dir" or not isinstance(word, str) or not word:
                continue
            path = Path(re.sub(r"^\w{2,}:", "", word))  # behind a prefix such as `scratch:`
            if path.exists() and path.resolve().is_relative_to(folder):
                raise InputError(f"--overwrite_output_dir: would delete {word}, which this command reads")


@contextmanager
def claimed(output: OutputArguments) -> Iterator[None]:
    """Keep other processes of this machine from writing to the output folder meanwhile.

    Raises `InputError` if another process does. Claims of one process may be nested, and of the processes of one run
    only the main process claims.
    """
    from filelock import FileLock, Timeout

    path = Path(output.output_dir).expanduser().absolute()
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    user = getattr(os, "getuid", lambda: "")()
    lock = FileLock(Path(tempfile.gettempdir()) / f"toolkit-{user}-{name}.lock", is_singleton=True)
    try:
        lock.acquire(timeout=SECONDS_TO_CLAIM)
    except Timeout:
        raise InputError(f"--output_dir {output.output_dir}: another run is writing there; name another") from None
    try:
        yield
    finally:
        lock.release()


def check_unchanged(folder: Path, content: dict[str, str]) -> None:
    """Check that a run in a folder is resumed with the data and the encoder that it began with, by their hashes.

    Raises `InputError` if they have changed. Another version of the toolkit is only said.
    """
    before = json.loads((folder / _MARK).read_text(encoding="utf-8") or "{}")
    if changed := [name for name, found in content.items() if before.get(name, found) != found]:
        what = " and ".join(changed)
        raise InputError(f"--resume: {what} of the run in {folder} changed since it began; name another --output_dir")
    if before.get(_VERSION, __version__) != __version__:
        began = f"began with version {before[_VERSION]} of the toolkit and goes on with {__version__}"
        print(f"--resume: the run in {folder} {began}", file=sys.stderr, flush=True)


def create_output_dir(
    output: OutputArguments, resume: bool | None = None, content: dict[str, str] | None = None
) -> Path:
    """Create the folder, and empty it if it is to be overwritten. Call it after everything else has been checked.

    `content` are hashes of data and encoder; raises `InputError` if the run is resumed and they were others.
    """
    folder = Path(output.output_dir)
    if resume and is_run(folder):
        check_unchanged(folder, content or {})
        return folder
    if output.overwrite_output_dir and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _MARK, json.dumps({**(content or {}), _VERSION: __version__}))
    return folder


def is_run(folder: Path) -> bool:
    """Whether this is the output folder of a run."""
    return (folder / _MARK).exists()


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
