"""What ends a command early: each is shown as one line, without a traceback."""


class InputError(ValueError):
    """Bad input: a file, a flag, a folder. The message names it, says what was expected, what to do. Exit code 2."""


class RunFailed(Exception):
    """Something outside failed: a disk, a process. What was saved before is whole, the message names it. Exit code 1,
    by which a scheduler may try again."""


class Interrupted(Exception):
    """A signal ended training after a checkpoint was saved; the message says how to go on."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number  # what a shell and a scheduler expect
