"""What the user can put right: shown as one line, exit code 2, no traceback."""


class InputError(ValueError):
    """Bad input: a file, a flag, a folder. The message names it, says what was expected and what to do."""


class Interrupted(Exception):
    """A signal ended training after a checkpoint was saved; the message says how to go on."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number  # what a shell and a scheduler expect
