"""Pull repositories from a Hub: complete, with the hashes that the server names, and only files that do no harm."""

import functools
import glob
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, RunFailed
from toolkit.hub.client import connect, retry, translate_errors
from toolkit.hub.safety import Kind, check_no_foreign_code, check_repo_id, is_ignored, reason_to_refuse
from toolkit.runs.output import nearest_existing
from toolkit.runs.results import REPOSITORY

WEIGHTS = ".safetensors"
MAX_GIGABYTES = 10.0  # of a repository, unless the user says how large it may be


def pull(
    repo_id: str,
    folder: str | Path,
    *,
    revision: str | None = None,
    kind: Kind = "model",
    skip_refused: bool = False,
    max_gigabytes: float = MAX_GIGABYTES,
) -> str:
    """Download a repository to a new or empty folder, and return the commit.

    The folder appears when it is complete: every file has the size and the hash that the server names.

    Args:
        revision: Branch, tag or commit (default: the newest commit of main).
        skip_refused: Leave out files that are refused, such as pickles, instead of raising.
        max_gigabytes: Refuse a larger repository.

    Raises:
        InputError: There is no such repository, it holds a refused file, or the folder cannot be made.
        RunFailed: The Hub does not answer, or answers wrongly.
    """
    check_repo_id(repo_id)
    folder, api = _check_new_folder(Path(folder)), connect()
    commit, allowed, refused = _list_files(api, repo_id, revision, kind)
    if refused and not skip_refused:
        path, reason = min(refused.items())
        raise InputError(f"{repo_id}: {path!r} is refused, {reason}; --skip_refused leaves such files out")
    if not set(allowed) - {".gitattributes"}:
        raise InputError(f"{repo_id}: there is nothing in it")
    _check_size(repo_id, sum(allowed.values()), max_gigabytes, folder)
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    partial.mkdir()
    try:
        with translate_errors(repo_id):
            wrong = _download(api, repo_id, kind, commit, allowed, partial)
            if wrong and (wrong := _download(api, repo_id, kind, commit, allowed, partial)):  # fetches them again
                raise RunFailed(f"{repo_id}: {min(wrong)!r} is not what its hash says; nothing was kept")
            shutil.rmtree(partial / ".cache", ignore_errors=True)
            check_no_foreign_code(repo_id, partial)
        os.replace(partial, folder)  # which may be there, empty
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return commit


def _download(api, repo_id: str, kind: Kind, commit: str, paths: Iterable[str], folder: Path) -> set[str]:
    """Download the files that are not yet in the folder. Returns those with a wrong hash, which are deleted."""
    from huggingface_hub import snapshot_download

    copy: Any = {"repo_type": kind, "revision": commit, "local_dir": folder}
    cache = folder / ".cache" / "hub"  # not the user's, where an earlier download may have left other content
    patterns = list(map(glob.escape, paths))
    retry(lambda: snapshot_download(repo_id, cache_dir=cache, allow_patterns=patterns, **copy))
    found = retry(lambda: api.verify_repo_checksums(repo_id, **copy))
    wrong = {str(each["path"]) for each in found.mismatches} | (set(found.missing_paths) & set(paths))
    for path in wrong:
        (folder / path).unlink(missing_ok=True)
    return wrong


def _check_new_folder(folder: Path) -> Path:
    """The absolute path. Raises `InputError` if no folder can be made there."""
    folder = folder.absolute()
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise InputError(f"{folder}: holds something already, name a new folder")
        if folder.exists() and (folder.samefile(Path.cwd()) or os.path.ismount(folder)):
            raise InputError(f"{folder}: is in use, name a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: no folder can be made there ({error.strerror})") from None
    if not os.access(folder.parent, os.W_OK):
        raise InputError(f"{folder}: no folder can be made there, {folder.parent} does not allow it")
    return folder


def _list_files(api, repo_id: str, revision: str | None, kind: Kind) -> tuple[str, dict[str, int], dict[str, str]]:
    """The commit, the bytes of each allowed file, and the reason for each refused one, without ignored files."""
    from huggingface_hub.hf_api import RepoFile

    with translate_errors(repo_id):
        info = retry(lambda: api.repo_info(repo_id, revision=revision, repo_type=kind))
        tree = retry(lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type=kind)))
    files = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
    reasons = {path: reason_to_refuse(path, kind) for path in files if not is_ignored(path, kind)}
    refused = {path: reason for path, reason in reasons.items() if reason is not None}
    refused |= {each.rfilename: "it is no plain file" for each in info.siblings or [] if each.rfilename not in files}
    return str(info.sha), {path: files[path] for path in reasons if path not in refused}, refused


def _check_size(repo_id: str, size: int, max_gigabytes: float, folder: Path) -> None:
    room = shutil.disk_usage(nearest_existing(folder)).free
    if size > room:
        raise InputError(f"{repo_id}: {size / 1e9:.1f} GB, and there are {room / 1e9:.1f} GB of disk")
    if size > 1e9 * max_gigabytes:
        raise InputError(
            f"{repo_id}: {size / 1e9:.1f} GB, more than {max_gigabytes:g}; "
            f"if you want it: toolkit pull {repo_id} DIR --max_gigabytes {size / 1e9 + 1:.0f}"
        )


def local_copy(name: str | Path) -> Path:
    """Find a folder, or download a repository, `org/name` or `org/name@revision`, to the cache of huggingface_hub.

    Only weights in safetensors and text are downloaded.

    Raises:
        InputError: There is no such folder or repository, or its weights are in a refused file.
        RunFailed: The Hub does not answer.
    """
    name = str(name)
    if Path(name).is_dir():
        return Path(name)
    repo_id, _, revision = name.partition("@")
    if not REPOSITORY.fullmatch(repo_id) or name.startswith("."):
        raise InputError(f"{name}: no such folder, expected a checkpoint or a Hub id like org/name")
    return _cached(repo_id, revision or None)


@functools.cache  # a command asks for the same one several times
def _cached(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import constants, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    check_repo_id(repo_id, "the encoder")
    api = connect()
    if constants.HF_HUB_OFFLINE:
        what = repo_id if revision is None else f"{repo_id}@{revision}"
        try:
            try:
                tree = get_cached_repo_tree(repo_id, revision=revision)
            except CachedRepoTreeNotFoundError:  # fetched by another tool, perhaps only some files
                folder = snapshot_download(repo_id, revision=revision, local_files_only=True)
                if not list(Path(folder).rglob(f"*{WEIGHTS}")):
                    raise InputError(
                        f"{what}: the copy in {folder} has no weights in {WEIGHTS}, and HF_HUB_OFFLINE is set"
                    ) from None
            else:
                paths = [entry.path for entry in tree if not is_ignored(entry.path, "model")]
                patterns = [glob.escape(path) for path in paths if reason_to_refuse(path, "model") is None]
                folder = snapshot_download(repo_id, revision=revision, allow_patterns=patterns)
        except LocalEntryNotFoundError:
            raise InputError(f"{what}: no such folder, nor a copy of it, and HF_HUB_OFFLINE is set") from None
    else:
        _, allowed_sizes, refused = _list_files(api, repo_id, revision, "model")
        weights = [path for path in refused if path.endswith((".bin", ".pt", ".h5", ".msgpack"))]
        if weights and not any(path.endswith(WEIGHTS) for path in allowed_sizes):
            raise InputError(f"{repo_id}: its weights are in {weights[0]}, which is refused, {refused[weights[0]]}")
        _check_size(repo_id, sum(allowed_sizes.values()), MAX_GIGABYTES, Path(constants.HF_HUB_CACHE))
        patterns = list(map(glob.escape, allowed_sizes))
        with translate_errors(repo_id):  # with the revision and not its commit: offline the copy is found by that name
            folder = retry(lambda: snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    check_no_foreign_code(repo_id, Path(folder))
    return Path(folder)
