"""A round trip to a Hub: create a private repository, upload to it, pull from it, delete it."""

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, RunFailed, first_line
from toolkit.hub.client import choose_transfer, connect, retry, translate_errors
from toolkit.hub.download import pull

LARGE = 12_000_000  # bytes: more than a Hub takes inside a commit


class RoundTrip:
    """The steps of a round trip, to be called in this order.

    Each returns what it found, or raises `InputError` or `RunFailed` that says what to do.
    """

    def __init__(self):
        self.api: Any = None
        self.repo_id = self.user = ""
        self.large = b""
        self.steps: dict[str, Callable[[], str]] = {
            "endpoint": self.reach,
            "login": self.log_in,
            "create": self.create,
            "privacy": self.check_privacy,
            "small upload": self.send_small,
            "large upload": self.send_large,
            "pull": self.pull,
        }

    def reach(self) -> str:
        from huggingface_hub import constants, get_session
        from huggingface_hub.errors import HTTPError

        if constants.HF_HUB_OFFLINE:
            raise RunFailed("HF_HUB_OFFLINE is set; unset it to reach the Hub")
        self.api = connect()
        started = time.monotonic()
        try:
            answer = get_session().get(f"{constants.ENDPOINT}/api/models?limit=1")
        except HTTPError as error:
            hint = "check HF_ENDPOINT, and HTTPS_PROXY and NO_PROXY if there is a proxy"
            if "CERTIFICATE" in str(error):
                hint = "set SSL_CERT_FILE to the file of your CA"
            raise RunFailed(f"{constants.ENDPOINT} does not answer ({first_line(error)}); {hint}") from None
        if "json" not in answer.headers.get("content-type", ""):
            raise RunFailed(f"{constants.ENDPOINT} does not answer as a Hub does; check HF_ENDPOINT")
        return f"{constants.ENDPOINT} answers in {time.monotonic() - started:.2f} s"

    def log_in(self) -> str:
        from huggingface_hub import get_token

        if get_token() is None:
            raise RunFailed(
                "there is no token; set HF_TOKEN, or HF_TOKEN_PATH to a file that holds it, or: hf auth login"
            )
        found = self._ask(self.api.whoami)
        self.user = found["name"]
        if (found.get("auth") or {}).get("accessToken", {}).get("role") == "read":
            raise RunFailed(f"the token of {self.user} may only read; make one that may write")
        return f"as {self.user}"

    def create(self) -> str:
        self.repo_id = f"{self.user}/toolkit-doctor-{secrets.token_hex(4)}"
        self._ask(lambda: self.api.create_repo(self.repo_id, private=True, exist_ok=True))
        return f"{self.repo_id}, which is deleted at the end"

    def check_privacy(self) -> str:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        if not self._ask(lambda: self.api.repo_info(self.repo_id)).private:
            raise RunFailed("the new repository is not private; keep private data off this server")
        try:
            HfApi(token=False).repo_info(self.repo_id)
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403, 404):
                return "a private repository cannot be seen without the token"
            raise
        raise RunFailed("anybody can see a private repository; keep private data off this server")

    def send_small(self) -> str:
        self._send("small.txt", b"sent by toolkit doctor\n")
        return "a text inside a commit"

    def send_large(self) -> str:
        transfer = choose_transfer(self.api, self.repo_id)
        self.large, started = secrets.token_bytes(LARGE), time.monotonic()
        try:
            self._send("large.safetensors", self.large)
        except (InputError, RunFailed) as error:
            advice = "try HF_HUB_DISABLE_XET=1" if transfer == "Xet" else "ask for LFS there"
            raise RunFailed(f"{error}; {advice}") from None
        speed = f"{LARGE / 1e6 / (time.monotonic() - started):.1f} MB/s by {transfer}"
        note = "; the server has no Xet, set HF_HUB_DISABLE_XET=1 for other tools"
        return speed + (note if transfer == "LFS" and "HF_HUB_DISABLE_XET" not in os.environ else "")

    def pull(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            pull(self.repo_id, Path(folder) / "pulled")
            if (Path(folder) / "pulled" / "large.safetensors").read_bytes() != self.large:
                raise RunFailed("the file that was pulled differs from the one that was sent; tell the operators")
        return "the files that were pulled are those that were sent"

    def clean_up(self) -> str:
        try:
            self._ask(lambda: self.api.delete_repo(self.repo_id))
        except (InputError, RunFailed) as error:
            raise RunFailed(f"delete {self.repo_id} yourself ({error})") from None
        return f"{self.repo_id} is deleted"

    def _send(self, path: str, content: bytes) -> None:
        self._ask(lambda: self.api.upload_file(repo_id=self.repo_id, path_or_fileobj=content, path_in_repo=path))

    def _ask(self, request: Callable[[], Any]) -> Any:
        with translate_errors(self.repo_id or "the Hub"):
            return retry(request)
