"""Send a folder to the Hub: all in one commit, with a card, and only what can do no harm."""

import atexit
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, readable
from toolkit.hub.cards import CARD, card, read_mapping
from toolkit.hub.download import WEIGHTS, choose_transfer, connect, explained, patiently
from toolkit.hub.safety import Kind, check_repo_id, is_left_out, refuse_tokens, what_speaks_against
from toolkit.models.families import FEW_SHOT_FILE, PREFIX, architectures
from toolkit.runs.results import is_main_process

CONFIG = "config.json"
OF_RUNS = re.compile(  # what a run leaves besides its model
    r"(^|/)(checkpoint-\d+|lr-[\d.e+-]+|whole|tensorboard|wandb)/|^predictions\.jsonl$"
)
MINUTES_TO_SHARE = 30.0  # what a training command has made


@dataclass(frozen=True)
class Plan:
    """What goes to a repository: each file by its path there, and what of the folder does not."""

    files: dict[str, Path | bytes]
    left_out: list[str]

    def size(self, path: str) -> int:
        """Bytes."""
        found = self.files[path]
        return len(found) if isinstance(found, bytes) else found.stat().st_size


@dataclass(frozen=True)
class Pushed:
    address: str
    commit: str
    plan: Plan


def plan_push(folder: str | Path, repo_id: str, kind: Kind = "model", with_code: bool = False) -> Plan:
    """What of a folder goes to the Hub, which is asked for no more than the licence of a data set that it has.

    Raises `InputError` where something may not be sent.
    """
    check_repo_id(repo_id)
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[str, Path | bytes] = {}
    left_out = []
    for path in _files_in(folder):
        name = path.relative_to(folder).as_posix()
        is_of_run = kind == "model" and OF_RUNS.search(name)
        if is_of_run or is_left_out(name, kind) or path.name == ".gitattributes":
            left_out.append(name)
            continue
        if reason := what_speaks_against(name, kind):
            raise InputError(f"{path}: not sent, {reason}")
        with readable(path):
            if path.suffix not in (WEIGHTS, ".parquet"):
                refuse_tokens(path)
        found[name] = path
    if not found:
        raise InputError(f"{folder}: nothing in it that can be sent")
    if kind == "model" and not ({CONFIG, FEW_SHOT_FILE, "tokenizer.json"} & set(found)):
        raise InputError(
            f"{folder}: holds no model, tokenizer or few-shot classifier; data is sent by --repo_type dataset"
        )
    if with_code:
        found |= code_of(folder)
    found[CARD] = card(folder, repo_id, kind, found)
    return Plan(found, left_out)


def _files_in(folder: Path) -> list[Path]:
    """All files, sorted. Raises `InputError` where one cannot be seen, or a link leads out of the folder."""

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})")

    found = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        for path in (Path(parent) / name for name in [*folders, *names]):
            if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(folder.resolve())):
                raise InputError(f"{path}: a link that leads out of the folder, which is not sent")
        found += [Path(parent) / name for name in names]
    return sorted(found)


def push(
    folder: str | Path,
    repo_id: str,
    *,
    kind: Kind = "model",
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    message: str | None = None,
    with_code: bool = False,
) -> Pushed:
    """Send a folder to a repository, made where there is none; what is there already is not sent again.

    The folder stays as it is. All files arrive in one commit, or none does; weights that an earlier push left and the
    folder has no longer go. Raises `InputError` where something may not be sent or the repository does not take it,
    `RunFailed` where the Hub does not answer.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    plan, folder = plan_push(folder, repo_id, kind, with_code), Path(folder)
    api = connect()
    with explained(repo_id):
        address = patiently(lambda: api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True))
        if private and not patiently(lambda: api.repo_info(repo_id, repo_type=kind)).private:
            raise InputError(f"{repo_id}: --private, but everyone can see the repository; nothing was sent")
        choose_transfer(api, repo_id, kind)
        if revision is not None:
            patiently(lambda: api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True))

        def commit() -> str:
            """Made anew on each attempt, since another commit may have come in between."""
            head = api.repo_info(repo_id, repo_type=kind, revision=revision).sha  # none of one without a commit
            there = api.list_repo_files(repo_id, repo_type=kind, revision=head) if head else []
            earlier = _read(api, repo_id, kind, head, CARD) if CARD in there else None
            plan.files[CARD] = card(folder, repo_id, kind, plan.files, earlier, tag or revision)
            stale = [path for path in there if path.endswith(WEIGHTS) and path not in plan.files]
            added = [
                CommitOperationAdd(path, str(found) if isinstance(found, Path) else found)
                for path, found in plan.files.items()
            ]
            return api.create_commit(
                repo_id,
                [*added, *map(CommitOperationDelete, stale)],
                commit_message=message or f"Upload {folder.absolute().name} with toolkit",
                repo_type=kind,
                revision=revision,
                parent_commit=head,
            ).oid

        made = patiently(commit)
        if tag is not None:
            patiently(lambda: api.create_tag(repo_id, tag=tag, revision=made, repo_type=kind, exist_ok=True))
            refs = patiently(lambda: api.list_repo_refs(repo_id, repo_type=kind))
            (at,) = (ref.target_commit for ref in refs.tags if ref.name == tag)
            if at != made:
                raise InputError(f"{repo_id}: pushed as {made[:8]}, but the tag {tag} stands at {at[:8]} already")
    return Pushed(str(address), made, plan)


def _read(api, repo_id: str, kind: Kind, commit: str, path: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        found = api.hf_hub_download(repo_id, path, repo_type=kind, revision=commit, local_dir=folder)
        with readable(f"{repo_id}/{path}"):
            return Path(found).read_text(encoding="utf-8")


def code_of(folder: Path) -> dict[str, Path | bytes]:
    """The source of a model of this package, flat, and its configuration that names it: by them transformers loads it
    where the package is not installed, with `trust_remote_code=True`. Of other models nothing."""
    config = read_mapping(folder / CONFIG)
    if not str(config.get("model_type")).startswith(PREFIX):
        return {}
    from transformers.dynamic_module_utils import get_relative_import_files

    found = [each for each in architectures() if each.model_type == config["model_type"]]
    if not found:
        raise InputError(f"{folder}: the toolkit has no encoder {config['model_type']}")
    module, classes = found[0].module, found[0].classes()
    source = Path(str(files("toolkit.models").joinpath(f"{module.rpartition('.')[2]}.py")))
    config["auto_map"] = {auto_class: f"{source.stem}.{name}" for auto_class, name in classes.items()}
    sources = [source, *map(Path, get_relative_import_files(source))]
    return {each.name: each for each in sources} | {CONFIG: (json.dumps(config, indent=2) + "\n").encode()}


def push_run(folder: str, repo_id: str | None) -> None:
    """Push the folder of a finished run, if a repository is named, on the main process.

    This happens in a process of its own, which this one waits for at its end. If it fails, a warning says how to try
    again; nothing that this process returns depends on it.
    """
    if repo_id is None or not is_main_process():
        return
    command = ["push", folder, repo_id, "--with_code"]

    def say(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def warn(reason: str) -> None:
        again = f"toolkit {shlex.join(command)}"
        say(f"toolkit: warning: {folder} is complete but was not sent to {repo_id} ({reason}); to try again: {again}")

    def wait() -> None:
        try:
            said, _ = sending.communicate(timeout=60 * MINUTES_TO_SHARE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            sending.kill()
            sending.wait()
            took_long = isinstance(error, subprocess.TimeoutExpired)
            return warn(f"it took over {MINUTES_TO_SHARE:g} minutes" if took_long else "interrupted")
        if sending.returncode == 0:
            say(f"sent {folder} to {repo_id}")
        else:
            warn(said.strip().rpartition("\n")[2].removeprefix("toolkit: error: "))

    say(f"sending {folder} to {repo_id} in the background")
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        sending = subprocess.Popen([sys.executable, "-m", "toolkit", *command], text=True, **pipes)
    except OSError as error:
        return warn(str(error))
    atexit.register(wait)
