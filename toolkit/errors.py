"""What ends a command early: each is shown as one line, without a traceback."""

import errno
import re

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class InputError(ValueError):
    """Bad input: a file, a flag, a folder. The message names it, says what was expected, what to do. Exit code 2."""


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
