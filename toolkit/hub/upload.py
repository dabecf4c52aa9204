"""Push a folder to a Hub: all files in one commit, with a card, and only files that do no harm."""

import atexit
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import InputError, readable
from toolkit.hub.cards import write_card
from toolkit.hub.client import choose_transfer, connect, retry, translate_errors
from toolkit.hub.download import WEIGHTS
from toolkit.hub.readme import CARD, read_mapping
from toolkit.hub.safety import Kind, check_no_tokens, check_repo_id, is_ignored, reason_to_refuse
from toolkit.models.families import FEW_SHOT_FILE, PREFIX, architectures
from toolkit.runs.results import is_main_process

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
FILES_OF_RUN = re.compile(  # what a run leaves besides its model
    r"(^|/)(checkpoint-\d+|lr-[\d.e+-]+|whole|tensorboard|wandb)/|^predictions\.jsonl$"
)
MAX_MINUTES = 30.0  # for the push after a training command


class Plan(NamedTuple):
    """What to push where: files by their path in the repository, and the files of the folder that are left out."""

    folder: Path
    repo_id: str
    kind: Kind
    files: dict[str, Path | bytes]
    left_out: list[str]

    def size(self, path: str) -> int:
        """Size of a file in bytes."""
        found = self.files[path]
        return len(found) if isinstance(found, bytes) else found.stat().st_size


class Pushed(NamedTuple):
    """A push that succeeded: address of the repository, commit, and what was sent."""

    address: str
    commit: str
    plan: Plan


def plan_push(folder: str | Path, repo_id: str, kind: Kind = "model", with_code: bool = False) -> Plan:
    """List what would be pushed, without asking the Hub for more than the licence of a data set that is there.

    Raises `InputError` if a file may not be sent, or the folder holds no model, tokenizer or few-shot classifier.
    """
    check_repo_id(repo_id)
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[str, Path | bytes] = {}
    left_out = []
    for path in _files_in(folder):
        name = path.relative_to(folder).as_posix()
        is_of_run = kind == "model" and FILES_OF_RUN.search(name)
        if is_of_run or is_ignored(name, kind) or path.name == ".gitattributes":
            left_out.append(name)
            continue
        if reason := reason_to_refuse(name, kind):
            raise InputError(f"{path}: not sent, {reason}")
        with readable(path):
            if path.suffix not in (WEIGHTS, ".parquet"):
                check_no_tokens(path)
        found[name] = path
    if not found:
        raise InputError(f"{folder}: nothing in it that can be sent")
    if kind == "model" and not ({CONFIG, FEW_SHOT_FILE, "tokenizer.json"} & set(found)):
        raise InputError(
            f"{folder}: holds no model, tokenizer or few-shot classifier; data is sent by --repo_type dataset"
        )
    if with_code:
        found |= source_code(folder)
    found[CARD] = write_card(folder, repo_id, kind, set(found))
    return Plan(folder, repo_id, kind, found, left_out)


def _files_in(folder: Path) -> list[Path]:
    """All files, sorted. Raises `InputError` if one cannot be read or a link leads out of the folder."""

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
    """Push a folder to a repository, which is created if necessary. Unchanged files are not sent again.

    All files arrive in one commit, or none does. Weights in the repository that the folder no longer has are deleted.

    Args:
        folder: Folder of a model, a tokenizer, a few-shot classifier or a data set; it is not changed.
        private: Create the repository as private, and refuse to push to one that is public.
        revision: Branch, created if necessary (default: main).
        tag: Name of the new commit, such as v1.
        message: Message of the commit.
        with_code: Add the model's source, by which it loads without this package.

    Raises:
        InputError: A file may not be sent, or the repository does not accept the push.
        RunFailed: The Hub does not answer.
    """
    plan = plan_push(folder, repo_id, kind, with_code)
    api = connect()
    with translate_errors(repo_id):
        address = retry(lambda: api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True))
        if private and not retry(lambda: api.repo_info(repo_id, repo_type=kind)).private:
            raise InputError(f"{repo_id}: --private, but everyone can see the repository; nothing was sent")
        choose_transfer(api, repo_id, kind)
        if revision is not None:
            retry(lambda: api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True))

        commit = retry(lambda: _commit(api, plan, revision, tag, message))
        if tag is not None:
            retry(lambda: api.create_tag(repo_id, tag=tag, revision=commit, repo_type=kind, exist_ok=True))
            refs = retry(lambda: api.list_repo_refs(repo_id, repo_type=kind))
            (at,) = (ref.target_commit for ref in refs.tags if ref.name == tag)
            if at != commit:
                raise InputError(f"{repo_id}: pushed as {commit[:8]}, but the tag {tag} stands at {at[:8]} already")
    return Pushed(str(address), commit, plan)


def _commit(api, plan: Plan, revision: str | None, tag: str | None, message: str | None) -> str:
    """Commit the files of the plan on the newest commit, with a card made from the card there; returns the new commit.

    If another commit comes in between, the Hub refuses this one, and everything here is done again.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    folder, repo_id, kind, files, _ = plan
    head = api.repo_info(repo_id, repo_type=kind, revision=revision).sha  # None in an empty repository
    there = api.list_repo_files(repo_id, repo_type=kind, revision=head) if head else []
    earlier = _read(api, repo_id, kind, head, CARD) if CARD in there else None
    files[CARD] = write_card(folder, repo_id, kind, set(files), earlier, tag or revision)
    stale = [path for path in there if path.endswith(WEIGHTS) and path not in files]
    added = [CommitOperationAdd(path, found) for path, found in files.items()]
    changes = [*added, *map(CommitOperationDelete, stale)]
    message = message or f"Upload {folder.absolute().name} with toolkit"
    to = {"repo_type": kind, "revision": revision, "parent_commit": head}
    return api.create_commit(repo_id, changes, commit_message=message, **to).oid


def _read(api, repo_id: str, kind: Kind, commit: str, path: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        found = api.hf_hub_download(repo_id, path, repo_type=kind, revision=commit, local_dir=folder)
        with readable(f"{repo_id}/{path}"):
            return Path(found).read_text(encoding="utf-8")


def source_code(folder: Path) -> dict[str, Path | bytes]:
    """The source files of a model that is in the table of encoders, and its configuration with `auto_map`.

    With them, `trust_remote_code=True` loads the model where this package is not installed. Empty for transformers'
    own models, unless their feature extractor is one of ours.
    """
    config, processor = read_mapping(folder / CONFIG), read_mapping(folder / PROCESSOR)
    model_type = str(config.get("model_type"))
    found = next((each for each in architectures() if each.model_type == model_type), None)
    if found is None and model_type.startswith(PREFIX):
        raise InputError(f"{folder}: the toolkit has no encoder {model_type}")
    files: dict[str, Path | bytes] = {}
    if found is not None:
        source, files = _source_of(found.module)
        config["auto_map"] = {auto_class: f"{source}.{name}" for auto_class, name in found.classes().items()}
        files[CONFIG] = _as_json(config)
    extractor = str(processor.get("feature_extractor_type"))
    if module := next((each.module for each in architectures() if each.feature_extractor == extractor), None):
        source, of_extractor = _source_of(module)
        processor["auto_map"] = {"AutoFeatureExtractor": f"{source}.{extractor}"}
        files |= of_extractor | {PROCESSOR: _as_json(processor)}
    return files


def _source_of(name: str) -> tuple[str, dict[str, Path | bytes]]:
    """The name of the file of a module, and this file with those that it imports from its own folder."""
    from transformers.dynamic_module_utils import get_relative_import_files

    module = sys.modules.get(name)  # also the script that runs, which `find_spec` does not know
    source = Path(module.__file__ if module else find_spec(name).origin)  # type: ignore[arg-type, union-attr]
    files = [source, *map(Path, get_relative_import_files(source))]
    return source.stem, {each.name: each for each in files}


def _as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def push_run(folder: str, repo_id: str | None) -> None:
    """Push the folder of a finished run in the background, if a repository is given and this is the main process.

    Another process pushes; this one waits for it before it exits. If the push fails, a warning says how to try again,
    and the exit code stays as it is.
    """
    if repo_id is None or not is_main_process():
        return
    command = ["push", folder, repo_id, "--with_code"]
    say = partial(print, file=sys.stderr, flush=True)

    def warn(reason: str) -> None:
        again = f"toolkit {shlex.join(command)}"
        say(f"toolkit: warning: {folder} is complete but was not sent to {repo_id} ({reason}); to try again: {again}")

    def wait() -> None:
        try:
            said, _ = sending.communicate(timeout=60 * MAX_MINUTES)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            sending.kill()
            sending.wait()
            took_long = isinstance(error, subprocess.TimeoutExpired)
            return warn(f"it took over {MAX_MINUTES:g} minutes" if took_long else "interrupted")
        if sending.returncode != 0:
            return warn(said.strip().rpartition("\n")[2].removeprefix("toolkit: error: "))
        say(f"sent {folder} to {repo_id}")

    say(f"sending {folder} to {repo_id} in the background")
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        sending = subprocess.Popen([sys.executable, "-m", "toolkit", *command], text=True, **pipes)
    except OSError as error:
        return warn(str(error))
    atexit.register(wait)
