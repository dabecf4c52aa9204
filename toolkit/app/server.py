"""The server of the page: its encoders, and how it is reached."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from filelock import AcquireReturnProxy, FileLock, Timeout
from gradio import processing_utils

from toolkit.app import UPLOADS
from toolkit.app.included_encoders import ENCODERS
from toolkit.app.learner import Learner
from toolkit.app.project import MOST_BYTES
from toolkit.app.teaching_page import CSS, TeachingPage
from toolkit.app.visits import Visits
from toolkit.errors import InputError, first_line
from toolkit.transfer.encoders import modality_of_encoder

FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]  # of the visitor's machine: no font is loaded from elsewhere
MONOSPACE = ["ui-monospace", "monospace"]


def learners_of(encoders: Sequence[str]) -> dict[str, Learner]:
    """The learner of each kind of examples, with the encoders named in place of those that come with the toolkit.

    Raises `InputError` if two of them read the same kind.
    """
    named: dict[str, str] = {}
    for encoder in encoders:
        kind = modality_of_encoder(encoder).name
        if kind in named:
            raise InputError(f"--encoder {encoder}: reads the same as {named[kind]}, expected one for each kind")
        named[kind] = encoder
    return {kind: Learner(encoder, kind) for kind, encoder in {**ENCODERS, **named}.items()}


def serve(
    encoders: Sequence[str], folder: Path, host: str, port: int, auth: tuple[str, str] | None, share: bool
) -> None:
    """Serve the page until it is interrupted. Raises `InputError` if the port or the folder cannot be used."""
    _refuse_to_fetch()
    with _locked(folder), _emptied(folder / UPLOADS):
        print("loading the encoders", file=sys.stderr, flush=True)
        visits = Visits(folder, learners_of(encoders))
        _launch(TeachingPage(visits, is_alone=auth is None).build(), host, port, auth, share)


def _locked(folder: Path) -> AcquireReturnProxy:
    """A lock that this server has on its folder, which is made if it does not exist."""
    lock = FileLock(folder / "lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return lock.acquire()
    except Timeout:
        raise InputError(f"--projects {folder}: another page uses this folder; name another") from None
    except OSError as error:
        raise InputError(f"--projects {folder}: cannot be used ({first_line(error)}); name another") from None


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """Delete a folder before and after, as a server that was killed has left it."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_to_fetch() -> None:
    """Keep gradio from fetching URLs that a request names in place of a file, which even looks up their host names."""

    async def refuse(*arguments: Any, **named: Any) -> Any:
        raise ValueError("this page fetches no URLs")

    for name in ("get", "async_validate_url"):  # of safehttpx, through which gradio fetches everything
        setattr(processing_utils.sh, name, refuse)


def _launch(blocks: gr.Blocks, host: str, port: int, auth: tuple[str, str] | None, share: bool) -> None:
    try:
        blocks.launch(
            server_name=host,
            server_port=port or None,
            auth=auth,
            share=share,
            max_file_size=MOST_BYTES,  # an example that is larger than allowed gets a message of the page
            theme=_theme(),
            css=CSS,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise InputError(f"--port {port}: cannot be used ({first_line(error)}); name another") from None
    try:
        print(f"the page is open at {blocks.local_url}  (end it with Ctrl-C)", flush=True)
        blocks.block_thread()
    finally:
        blocks.close(verbose=False)


def _theme() -> gr.themes.Base:
    """The default theme in blue, with the contrast between text and background that WCAG asks for, 4.5."""
    theme = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=MONOSPACE)
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
        button_cancel_background_fill_dark="#b91c1c",
        button_cancel_background_fill_hover_dark="#991b1b",
        button_cancel_text_color="white",
        button_cancel_text_color_dark="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )
