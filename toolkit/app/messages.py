"""Messages that the page shows beside its components."""

import sys
from html import escape

import gradio as gr


def warn(message: str) -> None:
    """Show why something was not done. Names of files and classes in a message are text, not HTML."""
    gr.Warning(escape(message).replace("\n", "<br>"), title="")
    print(message, file=sys.stderr, flush=True)
