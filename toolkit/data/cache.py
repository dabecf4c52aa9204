"""The cache of values and files that are computed from data, below the cache folder of `datasets`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, first_line
from toolkit.runs.output import write_json


def cache_folder() -> Path:
    """The folder of the cache, set by `HF_DATASETS_CACHE` or `HF_HOME`."""
    from huggingface_hub.constants import HF_HOME

    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets").expanduser() / "toolkit"


def locked(name: str):
    """A lock that all processes that share the cache respect. Raises `InputError` if the cache is not writable."""
    from filelock import FileLock

    folder = cache_folder() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({first_line(error)}); set HF_DATASETS_CACHE to a folder that can be written to"
        ) from None
    return FileLock(folder / digest(name))


def digest(*parts: Any) -> str:
    """A hash of values that JSON can hold."""
    import xxhash

    return xxhash.xxh3_128(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_json(
    kind: str, name: str, compute: Callable[[], Any], is_final: Callable[[Any], bool] = lambda value: True
) -> Any:
    """A value that JSON can hold, from the folder `kind` of the cache, or computed by one process at a time.

    `name` is the `digest` of everything that the value depends on; it is kept if `is_final` says so.
    """
    file = cache_folder() / kind / f"{name}.json"
    with locked(name):
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            value = compute()
        if is_final(value):
            write_json(file, value)
        return value


def cached_folder(kind: str, name: str, fill: Callable[[Path], None]) -> Path:
    """A folder of the cache, filled now unless it exists. `fill` continues what an interrupted process has left."""
    folder = cache_folder() / kind / name
    with locked(name):
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            partial.mkdir(parents=True, exist_ok=True)
            fill(partial)
            partial.rename(folder)
    return folder
