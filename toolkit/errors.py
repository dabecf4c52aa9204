"""The errors that end a command. Each is printed as one line, without a traceback."""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class InputError(ValueError):
    """Bad input: the message names the file, flag or folder, what was expected and what to do. Exit code 2."""


def check_flags(arguments: Any, names: str, holds: Callable[[Any], bool], expected: str) -> None:
    """Raises `InputError` for the first flag in `names` (separated by spaces) that is set and violates `holds`."""
    for name in names.split():
        value = getattr(arguments, name)
        if value is not None and not holds(value):
            raise InputError(f"--{name} {value}: expected {expected}")


check_positive = partial(check_flags, holds=lambda value: value > 0, expected="a number greater than zero")
check_not_negative = partial(check_flags, holds=lambda value: value >= 0, expected="zero or more")
check_share = partial(check_flags, holds=lambda value: 0 <= value < 1, expected="a fraction from 0 to below 1")
check_between_0_and_1 = partial(check_flags, holds=lambda value: 0 < value < 1, expected="a fraction between 0 and 1")


class RunFailed(Exception):
    """A failure outside the program, such as a full disk or a dead process. What was saved before is complete, and the
    message names it. Exit code 1, after which a scheduler may try again."""


def what_failed(error: BaseException) -> str | None:
    """The message for an error from outside the program (memory, another process); None for any other error."""
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
    """A signal ended training after a checkpoint was saved; the message says how to resume."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number  # what a shell and a scheduler expect


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Wraps imports of optional dependencies: raises `InputError` that says how to install the extra `name`."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{error.name} is missing, try: pip install 'pretrain-transfer-toolkit[{name}]'") from None


@contextmanager
def readable(path: Any) -> Iterator[None]:
    """Wraps the reading of a file: raises `InputError` if it cannot be read or is not UTF-8."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
