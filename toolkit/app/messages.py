"""Messages that the page shows beside its components."""

import functools
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from toolkit.errors import InputError, RunFailed


def warn(message: str) -> None:
    """Show why something was not done. Names of files and classes in a message are text, not HTML."""
    gr.Warning(escape(message).replace("\n", "<br>"), title="")


def with_warnings(handler: Callable) -> Callable:
    """The handler, whose errors of input and of the Hub are shown; its components then stay as they are."""

    @functools.wraps(handler)
    def call(*values: Any) -> Any:
        try:
            return handler(*values)
        except (InputError, RunFailed) as error:
            warn(str(error))
            return gr.skip()

    return call
