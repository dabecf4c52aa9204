"""Files on this machine or on the Hub: opening them, noticing changes, and telling damage from a passing failure."""

import gzip
import os
import zlib
from typing import IO

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
