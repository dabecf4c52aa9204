"""Files on this machine or on the Hub: opening them, noticing changes, and telling damage from a passing failure."""

import gzip
import io
import os
import zlib
from pathlib import Path
from typing import IO

from toolkit.errors import InputError

HUB = "hf://"  # prefix of the name of a file on the Hub, which includes its commit
CHUNK = 8 << 20  # bytes that are read at a time
READ_ERRORS = (OSError, EOFError, ValueError, NotImplementedError, zlib.error)  # NotImplementedError is Arrow's


def open_file(name: str) -> IO[bytes]:
    """Open a file of this machine or of the Hub, decompressed if its name ends in `.gz`."""
    if name.startswith(HUB):
        from huggingface_hub import HfFileSystem

        opened = HfFileSystem().open(name.removeprefix(HUB), "rb", block_size=CHUNK)
    else:
        opened = open(name, "rb")  # noqa: SIM115
    return gzip.GzipFile(fileobj=opened) if name.endswith(".gz") else opened  # type: ignore[return-value]


def stamp_of(file: str) -> tuple[str | int, ...]:
    """A value that changes when the file does: path, size and time of modification. Raises `OSError`."""
    if file.startswith(HUB):
        return (file,)
    found = os.stat(file)
    return os.path.abspath(file), found.st_size, found.st_mtime_ns


def read_errors(file: str) -> tuple[type[Exception], ...]:
    """The exceptions that reading this file can raise."""
    if not file.startswith(HUB):
        return READ_ERRORS
    from huggingface_hub.utils import httpx

    return (*READ_ERRORS, httpx.HTTPError)


def is_damage(error: Exception) -> bool:
    """Whether the content of a file is at fault, rather than network, disk or memory, which may recover."""
    if type(error) is OSError:
        return error.errno is None  # raised by Arrow
    is_of_system = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
    return isinstance(error, READ_ERRORS) and not is_of_system


def describe_bad_utf8(error: UnicodeDecodeError) -> str:
    """What is wrong with a line that is not UTF-8, and what to do about it."""
    return (
        f"is not UTF-8 (byte 0x{error.object[error.start]:02x} at column {error.start + 1}); convert it, for example: "
        "iconv -f LATIN1 -t UTF-8"
    )


def read_text(path: Path) -> str:
    """Read a text file, decompressed if its name ends in `.gz`, without a byte-order mark, with `\\n` as line ends.

    Raises `InputError` like `check_readable_text`.
    """
    check_readable_text(path)
    with io.TextIOWrapper(open_file(str(path)), encoding="utf-8-sig") as file:
        return file.read()


def check_readable_text(path: Path) -> None:
    """Raises `InputError`, which names the line, if this is no file, or empty, binary or not UTF-8."""
    if path.is_dir():
        raise InputError(f"{path}: this is a folder, expected a file")
    try:
        with open_file(str(path)) as file:
            start = file.read(8192)
            if not start:
                raise InputError(f"{path}: the file is empty")
            if b"\0" in start:
                raise InputError(f"{path}: this is a binary file, expected text in UTF-8")
            file.seek(0)
            for number, line in enumerate(file, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(f"{path}: line {number} {describe_bad_utf8(error)}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
