"""What ends a command early: each is shown as one line, without a traceback."""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class InputError(ValueError):
    """Bad input: a file, a flag, a folder. The message names it, says what was expected, what to do. Exit code 2."""


def check_flags(arguments: Any, names: str, holds: Callable[[Any], bool], expected: str) -> None:
    """Raises `InputError` for the first of the flags `names` that is given and of which `holds` is false."""
    for name in names.split():
        value = getattr(arguments, name)
        if value is not None and not holds(value):
            raise InputError(f"--{name} {value}: expected {expected}")


def check_positive(arguments: Any, names: str) -> None:
    check_flags(arguments, names, lambda value: value > 0, "a number greater than zero")


def check_not_negative(arguments: Any, names: str) -> None:
    check_flags(arguments, names, lambda value: value >= 0, "zero or more")


def check_share(arguments: Any, names: str) -> None:
    check_flags(arguments, names, lambda value: 0 <= value < 1, "a fraction from 0 to below 1")


def check_between_0_and_1(arguments: Any, names: str) -> None:
    check_flags(arguments, names, lambda value: 0 < value < 1, "a fraction between 0 and 1")


class RunFailed(Exception):
    """Something outside failed: a disk, a process. What was saved before is whole, the message names it. Exit code 1,
    by which a scheduler may try again."""


def what_failed(error: BaseException) -> str | None:
    """What to say of an error that comes from outside: memory, another process. None where it is of this program."""
    message = str(error)
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate memory" in message:
        return "out of memory: try a smaller --batch_size, or more --gradient_accumulation_steps"
    if isinstance(error, RuntimeError):
        if "DataLoader worker" in message:
            return "a process that prepares batches died, often for want of memory: try fewer --dataloader_num_workers"
        if re.search(r"gloo|NCCL|closed by peer|reset by peer", message, re.IGNORECASE):
            return "another process of this run is gone"
    return None


class Interrupted(Exception):
    """A signal ended training after a checkpoint was saved; the message says how to go on."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number  # what a shell and a scheduler expect


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of what comes with an extra of this package: raises `InputError` where it is not installed."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{error.name} is missing, try: pip install 'pretrain-transfer-toolkit[{name}]'") from None


@contextmanager
def readable(path: Any) -> Iterator[None]:
    """Around the reading of a file: raises `InputError` where it cannot be read, or is not UTF-8."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from None


def first_line(error: BaseException) -> str:
    """The first line of what a library has to say."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
