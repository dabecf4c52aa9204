"""The Hub of tests/hub_server.py as a process, and the requests that tests make to it."""

import base64
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any
from unittest import mock

SERVER = Path(__file__).parent / "hub_server.py"
IN_PROCESS = ("push", "pull", "predict", "doctor")  # commands that leave nothing behind in the process that runs them


def run_in_process(*arguments: Any, offline: bool = True, **variables: str) -> subprocess.CompletedProcess:
    """The command line in this process, where huggingface_hub was loaded offline or not."""
    from huggingface_hub import constants
    from in_process import run_here

    with mock.patch.object(constants, "HF_HUB_OFFLINE", offline):
        return run_here(*arguments, **variables)


class Loopback:
    """A context manager: the Hub runs inside, with the users `me` and `you`."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.token, self.other_token = (f"hf_{secrets.token_hex(17)}" for _ in range(2))
        self.home = tempfile.TemporaryDirectory(prefix="hub-home-")  # gone with this process
        self.environment = {  # of whom it is the Hub
            "HF_ENDPOINT": self.address,
            "HF_TOKEN": self.token,
            "HF_HOME": self.home.name,
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }

    def __enter__(self) -> "Loopback":
        command = [sys.executable, SERVER, str(self.port), f"{self.token}=me", f"{self.other_token}=you"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == self.address
        return self

    def __exit__(self, *exception) -> None:
        self._process.terminate()
        self._process.wait()

    def run(self, *arguments: Any, **variables: str) -> subprocess.CompletedProcess:
        """`toolkit` with these arguments, as a user of this Hub. The output must not show the token."""
        from conftest import REPOSITORY
        from forks import run_forked

        if arguments[0] in IN_PROCESS and set(variables) <= {"HF_TOKEN", "HF_HUB_OFFLINE"}:
            done = run_in_process(*arguments, offline=variables.get("HF_HUB_OFFLINE") == "1", **variables)
        else:
            words = list(map(str, arguments))
            done = run_forked(words, REPOSITORY, environment={"HF_HUB_OFFLINE": "0", **variables})
        assert self.token not in done.stdout + done.stderr
        return done

    def spoil(self, *kinds: str, **faults: Any) -> None:
        """Spoil answers from now on in these ways, or in none; see tests/hub_server.py."""
        self._post("/_faults", {"kinds": kinds, **faults})

    def plant(self, repository: str, path: str, content: bytes = b"x", **claims: Any) -> None:
        """Put a file into a repository, such as models/me/x, that may have any name and claim any size or type."""
        encoded = base64.b64encode(content).decode()
        self._post("/_plant", {"repository": repository, "path": path, "content": encoded, **claims})

    def seen(self) -> list[dict[str, Any]]:
        """All requests so far: method, path, bytes of the body."""
        return json.loads(self._request("/_seen"))

    def api(self, token: str | None = None):
        """The client of huggingface_hub, in this process."""
        from huggingface_hub import HfApi, constants

        constants.HF_HUB_OFFLINE = False
        return HfApi(self.address, token or self.token)

    def _post(self, path: str, content: dict[str, Any]) -> None:
        self._request(path, json.dumps(content).encode())

    def _request(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self.address + path, body)) as answer:
            return answer.read()
