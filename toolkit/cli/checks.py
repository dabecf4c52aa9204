"""Whether this machine, and the Hub, can do what the toolkit asks of them: one check a line, each with what to do.

Run as a module, in as many processes as a launcher starts, it lets them add up their ranks.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import InputError, RunFailed, first_line
from toolkit.runs.output import nearest_existing

PACKAGE = "pretrain-transfer-toolkit"
ROOM = 5e9  # bytes of disk below which checkpoints of small encoders soon do not fit
LARGE = 12_000_000  # bytes: more than a Hub takes inside a commit
SECONDS_FOR_PROCESSES = 120


class Check(NamedTuple):
    name: str
    outcome: str  # ok, failed or skipped
    said: str


def examine(with_hub: bool) -> Iterator[Check]:
    """One check after the other, of the Hub only if it is asked for."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("versions", versions),
        ("devices", devices),
        ("processes", processes),
        ("disk", disk),
        ("caches", caches),
    ]
    for name, check in checks:
        yield _run(name, check)
    if with_hub:
        yield from _examine_hub()


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", check())
    except (InputError, RunFailed) as error:
        return Check(name, "failed", " ".join(str(error).split()))
    except Exception as error:
        return Check(name, "failed", f"{type(error).__name__}: {first_line(error)}")


def versions() -> str:
    """Of what the package asks for; raises `RunFailed` where one is missing or another than asked for."""
    from packaging.requirements import Requirement

    wrong, found = [], []
    for line in requires(PACKAGE) or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed}, expected {requirement.specifier}")
        if requirement.name in ("torch", "transformers", "datasets", "accelerate", "huggingface-hub"):
            found.append(f"{requirement.name} {installed}")
    if wrong:
        raise RunFailed(f"{'; '.join(wrong)}; try: pip install --upgrade {PACKAGE}")
    return f"python {sys.version.split()[0]}, {', '.join(found)}"


def devices() -> str:
    import torch

    from toolkit.training.distributed import knows_bfloat16

    cpu = torch.device("cpu")
    said = [f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"]
    said.append(f"bfloat16 on the CPU {'is fast' if knows_bfloat16(cpu) else 'is slow: leave --bf16 out'}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            torch.ones(8, device=f"cuda:{index}").sum().item()
            said.append(f"GPU {index}: {properties.name}, {properties.total_memory / 1e9:.0f} GB")
    elif shutil.which("nvidia-smi") and torch.version.cuda is None:
        raise RunFailed(
            "there is a GPU, but this torch is built without CUDA; install torch for your CUDA from pytorch.org"
        )
    elif torch.accelerator.is_available():
        said.append(str(torch.accelerator.current_accelerator()))
    else:
        said.append("no GPU")
    return ", ".join(said)


def processes() -> str:
    """Two of them, started by torchrun, add up their ranks."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "toolkit.cli.checks"]
    advice = "try GLOO_SOCKET_IFNAME=lo, and see whether a firewall keeps them apart"
    variables = {
        name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")
    }
    try:
        done = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=SECONDS_FOR_PROCESSES,
            env={**variables, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"two processes did not find one another in {SECONDS_FOR_PROCESSES} s; {advice}") from None
    if "the ranks add up to 1" not in done.stdout:
        raise RunFailed(f"two processes of torchrun cannot work together ({_last_line(done.stderr)}); {advice}")
    return "two processes of torchrun work together"


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:200]


def disk() -> str:
    places = {"here": Path.cwd(), "for temporary files": Path(tempfile.gettempdir())}
    free = {where: shutil.disk_usage(path).free for where, path in places.items()}
    for where, size in free.items():
        if size < ROOM:
            raise RunFailed(
                f"{size / 1e9:.1f} GB free {where} ({places[where]}); delete old checkpoints, or set TMPDIR"
            )
    return ", ".join(f"{size / 1e9:.0f} GB free {where}" for where, size in free.items())


def caches() -> str:
    import datasets
    from huggingface_hub import constants

    said = []
    for name, folder in (("Hub", constants.HF_HUB_CACHE), ("datasets", datasets.config.HF_DATASETS_CACHE)):
        path = Path(folder)
        if not os.access(nearest_existing(path), os.W_OK):
            raise RunFailed(
                f"the cache of the {name} in {path} cannot be written to; set HF_HOME to a folder that can"
            )
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        said.append(f"{name} {size / 1e9:.1f} GB in {path}")
    return ", ".join(said)


# The Hub


def _examine_hub() -> Iterator[Check]:
    visit = _Visit()
    steps = (
        ("endpoint", visit.reach),
        ("login", visit.log_in),
        ("create", visit.create),
        ("privacy", visit.look_as_a_stranger),
        ("small upload", visit.send_small),
        ("large upload", visit.send_large),
        ("pull", visit.pull),
    )
    failed = None
    try:
        for name, step in steps:
            check = Check(name, "skipped", f"since {failed} failed") if failed else _run(name, step)
            failed = failed or (name if check.outcome == "failed" else None)
            yield check
    finally:
        left = _run("clean-up", visit.leave) if visit.repo_id is not None else None
    if left is not None:
        yield left


class _Visit:
    """A private repository that is made, used and deleted again."""

    def __init__(self):
        from toolkit.hub.download import connect

        self.api = connect()
        self.repo_id: str | None = None
        self.user = ""
        self.large = b""

    def ask(self, request: Callable[[], Any]) -> Any:
        from toolkit.hub.download import explained, patiently

        with explained(self.repo_id or "the Hub"):
            return patiently(request)

    def reach(self) -> str:
        import httpx2
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        if constants.HF_HUB_OFFLINE:
            raise RunFailed("HF_HUB_OFFLINE is set; unset it to reach the Hub")
        started = time.monotonic()
        try:
            answer = get_session().get(f"{constants.ENDPOINT}/api/models?limit=1")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            hint = (
                "set SSL_CERT_FILE to the file of your CA"
                if "CERTIFICATE" in str(error)
                else ("check HF_ENDPOINT, and HTTPS_PROXY and NO_PROXY where there is a proxy")
            )
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
        found = self.ask(self.api.whoami)
        self.user = found["name"]
        role = (found.get("auth") or {}).get("accessToken", {}).get("role")
        if role == "read":
            raise RunFailed(f"the token of {self.user} may only read; make one that may write")
        return f"as {self.user}"

    def create(self) -> str:
        self.repo_id = f"{self.user}/toolkit-doctor-{secrets.token_hex(4)}"
        self.ask(lambda: self.api.create_repo(self.repo_id, private=True, exist_ok=True))
        return f"{self.repo_id}, which is deleted at the end"

    def look_as_a_stranger(self) -> str:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        if not self.ask(lambda: self.api.repo_info(self.repo_id)).private:
            raise RunFailed("the repository was to be private and is not; keep what is private off this server")
        try:
            HfApi(token=False).repo_info(self.repo_id or "")
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403, 404):
                return "a private repository cannot be seen without the token"
            raise
        raise RunFailed("a stranger can see a private repository; keep what is private off this server")

    def send_small(self) -> str:
        self._send("small.txt", b"sent by toolkit doctor\n")
        return "a text inside a commit"

    def send_large(self) -> str:
        from toolkit.hub.download import choose_transfer

        transfer = choose_transfer(self.api, self.repo_id or "")
        self.large, started = secrets.token_bytes(LARGE), time.monotonic()
        try:
            self._send("large.safetensors", self.large)
        except (InputError, RunFailed) as error:
            raise RunFailed(
                f"{error}; {'try HF_HUB_DISABLE_XET=1' if transfer == 'Xet' else 'ask for LFS there'}"
            ) from None
        speed = f"{LARGE / 1e6 / (time.monotonic() - started):.1f} MB/s by {transfer}"
        note = "; the server has no Xet, set HF_HUB_DISABLE_XET=1 for other tools"
        return speed + (note if transfer == "LFS" and "HF_HUB_DISABLE_XET" not in os.environ else "")

    def pull(self) -> str:
        from toolkit.hub.download import pull

        with tempfile.TemporaryDirectory() as folder:
            pull(self.repo_id or "", Path(folder) / "pulled")
            if (Path(folder) / "pulled" / "large.safetensors").read_bytes() != self.large:
                raise RunFailed("what came back is not what was sent; tell whoever runs the server")
        return "what came back is what was sent"

    def leave(self) -> str:
        try:
            self.ask(lambda: self.api.delete_repo(self.repo_id))
        except (InputError, RunFailed) as error:
            raise RunFailed(f"delete {self.repo_id} yourself ({error})") from None
        return f"{self.repo_id} is deleted"

    def _send(self, path: str, content: bytes) -> None:
        self.ask(lambda: self.api.upload_file(repo_id=self.repo_id, path_or_fileobj=content, path_in_repo=path))


def _add_up_ranks() -> None:
    import torch

    torch.distributed.init_process_group("gloo")
    total = torch.tensor(float(torch.distributed.get_rank()))
    torch.distributed.all_reduce(total)
    if torch.distributed.get_rank() == 0:
        print(f"the ranks add up to {int(total)}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _add_up_ranks()
