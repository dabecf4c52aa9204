"""Which files may be pushed and pulled: weights in safetensors and text, inside the folder, without tokens.

Loading a pickle runs whatever code its author put into it (https://huggingface.co/docs/hub/security-pickle).
"""

import json
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from toolkit.errors import InputError

Kind = Literal["model", "dataset"]

ALLOWED = set(".safetensors .json .jsonl .txt .md .py .jinja .csv .tsv .yaml .yml .conllu".split())
ALLOWED_NAMES = {".gitattributes", "LICENSE", "NOTICE"}
PICTURES = set(".png .jpg .jpeg .gif .webp .bmp .svg".split())
ALLOWED_IN_DATASETS = {".parquet", *PICTURES} - {".svg"}
PICKLES = set(".bin .pt .pth .ckpt .pkl .pickle .joblib .npy .npz .model .h5 .msgpack".split())
ARCHIVES = set(".zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .whl".split())
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")


def check_repo_id(repo_id: str, flag: str = "REPO_ID") -> None:
    """Raises `InputError` if no Hub would accept the name of the repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    with suppress(HFValidationError):
        validate_repo_id(repo_id)
        if repo_id.count("/") == 1 and repo_id.isascii():
            return
    raise InputError(f"{flag} {repo_id}: expected a name like org/name, of letters, digits and single - _ .")


def reason_to_refuse(path: str, kind: Kind) -> str | None:
    """Why a file of this name is neither pushed nor pulled; None if it may be."""
    name = PurePosixPath(path)
    if _leads_out(path):
        return "its name leads out of the folder"
    if ".git" in name.parts:
        return "its name is one of git's own"
    if any(len(part.encode()) > 255 for part in name.parts):
        return "its name is too long"
    suffix = name.suffix.lower()
    if name.name in ALLOWED_NAMES or suffix in ALLOWED or (kind == "dataset" and suffix in ALLOWED_IN_DATASETS):
        return None
    if suffix in PICKLES:
        return f"{suffix} may be a pickle, which can run code when it is read"
    if suffix in ARCHIVES:
        return "it is an archive, in which anything can be"
    return "it is neither weights in safetensors nor text"


def is_ignored(path: str, kind: Kind) -> bool:
    """Whether the file is left out without an error: hidden files, and pictures beside a model."""
    name = PurePosixPath(path)
    if _leads_out(path) or ".git" in name.parts or name.name in ALLOWED_NAMES:
        return False
    is_hidden = any(part.startswith(".") for part in name.parts)
    return is_hidden or (kind == "model" and name.suffix.lower() in PICTURES)


def _leads_out(path: str) -> bool:
    name = PurePosixPath(path)
    has_drive = re.match(r"\w:", path) is not None
    return name.is_absolute() or ".." in name.parts or "\\" in path or has_drive or not path.isprintable()


def check_no_foreign_code(name: str, folder: Path) -> None:
    """Raises `InputError` if a configuration in the folder names code of another repository."""
    for path in folder.rglob("*.json"):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError, IsADirectoryError):
            continue
        for reference in _code_references(found):
            if "--" in reference:
                other = reference.partition("--")[0]
                raise InputError(f"{name}: {path.name} names code of another repository, {other}")


def _code_references(value: Any, is_code: bool = False) -> Iterator[str]:
    """All strings, at any depth, below the keys by which transformers finds code."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _code_references(inside, is_code or key in ("auto_map", "custom_pipelines"))
    elif isinstance(value, list):
        for inside in value:
            yield from _code_references(inside, is_code)
    elif is_code and isinstance(value, str):
        yield value


def check_no_tokens(path: Path) -> None:
    """Raises `InputError` if a text file contains the user's token, or what looks like another one."""
    if path.stat().st_size == 0:  # which mmap refuses
        return
    token = _user_token().encode()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _TOKEN.search(content) or (token and content.find(token) >= 0):
            raise InputError(f"{path}: holds a token of a Hub, which is not sent; take it out")


def redact_token(text: str) -> str:
    token = _user_token()
    return text.replace(token, "***") if token else text


def _user_token() -> str:
    """The user's token; empty if it is so short that it could be a word of any text."""
    from huggingface_hub import get_token

    token = get_token() or ""
    return token if len(token) >= 8 else ""
