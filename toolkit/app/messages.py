"""Messages that the page shows beside its components."""

import functools
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from toolkit.errors import InputError, RunFailed, first_line

REFUSALS = (InputError, OSError)  # what may be raised where a visitor changes something


def warn(message: str) -> None:
    """Show why something was not done. Names of files and classes in a message are text, not HTML."""
    gr.Warning(escape(message).replace("\n", "<br>"), title="")


def reason_of(error: Exception) -> str:
    """Why something was not done."""
    return f"files cannot be read or written: {first_line(error)}" if isinstance(error, OSError) else str(error)


def with_warnings(handler: Callable) -> Callable:
    """The handler, whose errors of input, of files and of the Hub are shown; its components then stay as they are."""

    @functools.wraps(handler)
    def call(*values: Any) -> Any:
        try:
            return handler(*values)
        except (*REFUSALS, RunFailed) as error:
            warn(reason_of(error))
            return gr.skip()

    return call
