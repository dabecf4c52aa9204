"""The Hub of tests/hub_server.py as a process, and what tests do with it."""

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

SERVER = Path(__file__).parent / "hub_server.py"


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
        """`toolkit` with these arguments, as a user of this Hub, who never gets to see the token."""
        from conftest import REPOSITORY
        from forks import run_forked

        words = list(map(str, arguments))
        done = run_forked(words, REPOSITORY, environment={"HF_HUB_OFFLINE": "0", **variables})
        assert self.token not in done.stdout + done.stderr
        return done

    def spoil(self, *kinds: str, **faults: Any) -> None:
        """Answer wrong from now on, in these ways, none for not at all; see tests/hub_server.py."""
        self._post("/_faults", {"kinds": kinds, **faults})

    def plant(self, repository: str, path: str, content: bytes = b"x", **claims: Any) -> None:
        """Put a file into a repository, such as models/me/x, whatever it is called or claims to be."""
        encoded = base64.b64encode(content).decode()
        self._post("/_plant", {"repository": repository, "path": path, "content": encoded, **claims})

    def seen(self) -> list[dict[str, Any]]:
        """All requests so far: method, path, size of what was sent."""
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
