"""From the Hub: whole, with the hashes that the server names, and only what can do no harm. `upload` goes there."""

import functools
import glob
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import InputError, RunFailed, first_line
from toolkit.hub.safety import (
    Kind,
    check_repo_id,
    is_left_out,
    refuse_foreign_code,
    what_speaks_against,
    without_token,
)
from toolkit.runs.output import nearest_existing
from toolkit.runs.results import REPOSITORY

T = TypeVar("T")

WEIGHTS = ".safetensors"
MAX_GIGABYTES = 10.0  # of a repository that is pulled without saying how large it may be
ATTEMPTS, FIRST_WAIT = 5, 0.5  # a failed request is repeated after 0.5, 1, 2 and 4 seconds
SECONDS_WITHOUT_A_BYTE, SECONDS_TO_CONNECT = 60.0, 10.0


def pull(
    repo_id: str,
    folder: str | Path,
    *,
    revision: str | None = None,
    kind: Kind = "model",
    skip_refused: bool = False,
    max_gigabytes: float = MAX_GIGABYTES,
) -> str:
    """Fetch a repository to a new folder; returns the commit that it is of.

    The folder is there when all files are, each with the size and hash that the server names. Raises `InputError`
    where the repository is not there or holds what is refused, `RunFailed` where the Hub does not answer.
    """
    from huggingface_hub import snapshot_download

    check_repo_id(repo_id)
    folder, api = _free(Path(folder)), connect()
    commit, taken, refused = _listed(api, repo_id, revision, kind)
    if refused and not skip_refused:
        path, reason = min(refused.items())
        raise InputError(f"{repo_id}: {path!r} is refused, {reason}; --skip_refused leaves such files out")
    if not set(taken) - {".gitattributes"}:
        raise InputError(f"{repo_id}: there is nothing in it")
    _check_size(repo_id, sum(taken.values()), max_gigabytes, _room(folder))
    with _new_folder(folder) as partial, explained(repo_id):
        for attempt in range(2):
            patiently(
                lambda: snapshot_download(
                    repo_id,
                    repo_type=kind,
                    revision=commit,
                    local_dir=partial,
                    cache_dir=partial / ".cache" / "hub",  # nothing that another download has left is trusted
                    allow_patterns=_exactly(taken),
                )
            )
            verified = patiently(
                lambda: api.verify_repo_checksums(repo_id, repo_type=kind, revision=commit, local_dir=partial)
            )
            wrong = {str(each["path"]) for each in verified.mismatches} | (set(verified.missing_paths) & set(taken))
            if not wrong:
                break
            if attempt:
                raise RunFailed(f"{repo_id}: {min(wrong)!r} is not what its hash says; nothing was kept")
            for path in wrong:
                (partial / path).unlink(missing_ok=True)
        shutil.rmtree(partial / ".cache", ignore_errors=True)
        refuse_foreign_code(repo_id, partial)
    return commit


def _free(folder: Path) -> Path:
    """The same, absolute, where a folder of that name can be made. Raises `InputError` where it cannot."""
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


def _exactly(paths: Iterable[str]) -> list[str]:
    """Patterns for these files and no others."""
    return [glob.escape(path) for path in paths]


def _listed(api, repo_id: str, revision: str | None, kind: Kind) -> tuple[str, dict[str, int], dict[str, str]]:
    """The commit, the bytes of each file that may be taken, and why others are refused; some files are neither."""
    from huggingface_hub.hf_api import RepoFile

    with explained(repo_id):
        info = patiently(lambda: api.repo_info(repo_id, revision=revision, repo_type=kind))
        tree = patiently(lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type=kind)))
    files = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
    allowed, refused = _sorted_out(files, kind)
    refused |= {each.rfilename: "it is no plain file" for each in info.siblings or [] if each.rfilename not in files}
    return str(info.sha), {path: files[path] for path in allowed}, refused


def _sorted_out(paths: Iterable[str], kind: Kind) -> tuple[list[str], dict[str, str]]:
    """The files that may be taken, and why others are refused."""
    reasons = {path: what_speaks_against(path, kind) for path in paths if not is_left_out(path, kind)}
    return [path for path, reason in reasons.items() if reason is None], {p: r for p, r in reasons.items() if r}


def _room(folder: Path) -> int:
    """Free bytes where it is or will be."""
    return shutil.disk_usage(nearest_existing(folder)).free


def _check_size(repo_id: str, size: int, max_gigabytes: float, room: int) -> None:
    if size > room:
        raise InputError(f"{repo_id}: {size / 1e9:.1f} GB, and there are {room / 1e9:.1f} GB of disk")
    if size > 1e9 * max_gigabytes:
        raise InputError(
            f"{repo_id}: {size / 1e9:.1f} GB, more than {max_gigabytes:g}; "
            f"if you want it: toolkit pull {repo_id} DIR --max_gigabytes {size / 1e9 + 1:.0f}"
        )


def local_copy(name: str | Path) -> Path:
    """The folder of that name, or of a copy of the repository `org/name` or `org/name@revision`.

    The copy is kept in the cache of huggingface_hub. Of the repository only weights in safetensors and text are
    fetched. Raises `InputError` where there is no such folder or repository, or no weights that are read here.
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
        try:
            tree = get_cached_repo_tree(repo_id, revision=revision)
            allowed, _ = _sorted_out((entry.path for entry in tree), "model")
            folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=_exactly(allowed)))
        except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
            what = repo_id if revision is None else f"{repo_id}@{revision}"
            raise InputError(f"{what}: no such folder, nor a copy of it, and HF_HUB_OFFLINE is set") from None
    else:
        _, taken, refused = _listed(api, repo_id, revision, "model")
        weights = [path for path in refused if path.endswith((".bin", ".pt", ".h5", ".msgpack"))]
        if weights and not any(path.endswith(WEIGHTS) for path in taken):
            raise InputError(f"{repo_id}: its weights are in {weights[0]}, which is refused, {refused[weights[0]]}")
        _check_size(repo_id, sum(taken.values()), MAX_GIGABYTES, _room(Path(constants.HF_HUB_CACHE)))
        with explained(repo_id):
            found = patiently(
                # by the name of the revision, by which the copy is then found offline
                lambda: snapshot_download(repo_id, revision=revision, allow_patterns=_exactly(taken))
            )
            folder = Path(found)
    refuse_foreign_code(repo_id, folder)
    return folder


def connect():
    """The client of huggingface_hub, which gives up a server that says nothing, and leaves explaining to us."""
    import httpx2
    from huggingface_hub import HfApi, set_client_factory
    from huggingface_hub.utils import disable_progress_bars, logging
    from huggingface_hub.utils._http import default_client_factory

    def client():
        made = default_client_factory()
        made.timeout = httpx2.Timeout(SECONDS_WITHOUT_A_BYTE, connect=SECONDS_TO_CONNECT)
        return made

    set_client_factory(client)
    logging.set_verbosity_error()
    logging.get_logger("huggingface_hub.utils._http").setLevel(logging.CRITICAL)
    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi()


def choose_transfer(api, repo_id: str, kind: Kind = "model") -> str:
    """How large files will go to a repository that is there: by Xet, or by LFS where the server has no Xet.

    The client asks for Xet alone where it is installed, and cannot be told apart then from one that hangs.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session
    from huggingface_hub.utils._runtime import is_xet_available

    if is_xet_available():
        address = f"{api.endpoint}/api/{kind}s/{repo_id}/xet-write-token/main"
        answer = patiently(lambda: get_session().get(address, headers=build_hf_headers(token=api.token)))
        constants.HF_HUB_DISABLE_XET = answer.status_code == 404
    return "Xet" if is_xet_available() else "LFS"


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, which takes its name when the block ends well and is gone when it does not."""
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    partial.mkdir()
    try:
        yield partial
        os.replace(partial, folder)  # which may be there, empty
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def patiently(request: Callable[[], T]) -> T:
    """What `request` returns, repeated with growing waits while the Hub or the way to it fails."""
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except Exception as error:
            if attempt == ATTEMPTS - 1 or not _may_pass(error):
                raise
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError("unreachable")


def _may_pass(error: BaseException | None) -> bool:
    """Whether the same request may succeed later."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    while error is not None:
        if isinstance(error, OfflineModeIsEnabled | httpx2.ReadTimeout):
            return False  # to wait a minute for an answer is enough
        if isinstance(error, HfHubHTTPError):
            return _passes(error.response.status_code)
        if isinstance(error, httpx2.TransportError | ConnectionError | RuntimeError):  # the last one of Xet
            return True
        if "Consistency check failed" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _passes(status: int) -> bool:
    """Whether an answer of that status may be another one later."""
    return status in (408, 412, 429) or status >= 500


@contextmanager
def explained(repo_id: str) -> Iterator[None]:
    """Errors of the client as one line that says what to do, without the token."""
    import httpx2
    from huggingface_hub import constants, get_token
    from huggingface_hub import errors as hub

    where = f"{repo_id} at {constants.ENDPOINT}"

    def said(error: BaseException) -> str:
        return without_token(getattr(error, "server_message", None) or first_line(error))

    try:
        yield
    except InputError:
        raise
    except hub.HFValidationError as error:
        raise InputError(f"{repo_id}: {first_line(error)}") from None
    except hub.GatedRepoError:
        raise InputError(f"{where}: gated; ask for access on its page, then set HF_TOKEN") from None
    except hub.RepositoryNotFoundError:
        known = "with this token" if get_token() else "without a token, set HF_TOKEN"
        raise InputError(f"{where}: no such repository, or a private one that cannot be seen {known}") from None
    except hub.RevisionNotFoundError:
        raise InputError(f"{where}: no such revision") from None
    except (hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError) as error:
        if constants.HF_HUB_OFFLINE:
            raise InputError(f"{where}: HF_HUB_OFFLINE is set, unset it to reach the Hub") from None
        raise RunFailed(f"{where}: cannot be reached ({said(error.__cause__ or error)})") from None
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            what = "HF_TOKEN does not allow it" if get_token() else "needs a token, set HF_TOKEN"
            raise InputError(f"{where}: {what} ({said(error)})") from None
        raised: Any = RunFailed if _passes(status) else InputError
        raise raised(f"{where}: {status}, {said(error)}") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: HF_TOKEN or a name has letters that no token or address has") from None
    except (httpx2.TransportError, ConnectionError) as error:
        hint = "; set SSL_CERT_FILE to the file of your CA" if "CERTIFICATE_VERIFY_FAILED" in str(error) else ""
        raise RunFailed(f"{where}: does not answer ({said(error)}){hint}") from None
    except (ValueError, OSError, RuntimeError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        if "Consistency check failed" in str(error):
            raise RunFailed(f"{where}: a file ended early; nothing was kept") from None
        if isinstance(error, ValueError) and "metadata" in str(error):  # of a card, which the Hub does not take
            raise InputError(f"{where}: README.md is not taken ({' '.join(said(error).split())})") from None
        if isinstance(error, OSError) and error.errno is not None:  # of a disk
            raise
        raise RunFailed(f"{where}: does not answer as a Hub does ({said(error)})") from None
