"""Open a page on which you teach a classifier of images, sounds or texts by examples, on your own machine.

toolkit app
toolkit app --encoder runs/resnet runs/bert
toolkit app --encoder sentence-transformers/all-MiniLM-L6-v2 --port 7861
toolkit app --host 0.0.0.0 --password 'a long one'
"""

import ipaddress
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.app import UPLOADS
from toolkit.cli.flags import parse_flags
from toolkit.errors import InputError, check_flags, extra
from toolkit.runs.arguments import Arguments

LOOPBACK = "127.0.0.1"
USER = "user"


@dataclass(kw_only=True)
class AppArguments(Arguments):
    """page"""

    encoder: list[str] = field(default_factory=list)
    """Folders or Hub ids of encoders, at most one for each of images, sounds and texts (default: those that come with
    the toolkit)."""
    projects: str = "runs/app"
    """Folder where the page keeps the projects of its visitors."""
    host: str = LOOPBACK
    """Address that the page is served on; any other than the default can be reached by others and needs a
    --password."""
    port: int = 7860
    """Port of the page; 0 is any free one."""
    password: str | None = None
    """Password that visitors must give, with the name 'user' (default: the environment variable
    TOOLKIT_APP_PASSWORD, which other users of the machine cannot see)."""
    share: bool = False
    """Make the page public for up to a week through a server of gradio; needs a --password."""

    def check(self) -> None:
        check_flags(self, "port", lambda port: 0 <= port < 65536, "a port from 0 to 65535")
        try:
            is_private = self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            raise InputError(f"--host {self.host}: expected an IP address") from None
        self.password = self.password or os.environ.get("TOOLKIT_APP_PASSWORD")
        if (self.share or not is_private) and not self.password:
            flag = "--share" if self.share else f"--host {self.host}"
            raise InputError(f"{flag}: lets others reach the page, so it needs a --password")


def parse(words: Sequence[str]) -> AppArguments:
    return parse_flags(words, AppArguments, "toolkit app", __doc__)


def run(arguments: AppArguments) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    folder = Path(arguments.projects).expanduser().absolute()
    os.environ["GRADIO_TEMP_DIR"] = str(folder / UPLOADS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to end as by Ctrl-C
    with extra("app"):
        import gradio  # noqa: F401

    from toolkit.app.server import serve

    auth = (USER, arguments.password) if arguments.password else None
    serve(arguments.encoder, folder, arguments.host, arguments.port, auth, arguments.share)
