"""The card of a repository, its README.md, made from `results.json` and the configuration.

Mitchell et al. (2019), "Model cards for model reporting", https://arxiv.org/abs/1810.03993; the fields of the metadata
are those of https://huggingface.co/docs/hub/model-cards. Each push replaces the text between two marks, and keeps the
text around them and metadata that people have edited.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from toolkit.data.splits import find_data, suffix_of
from toolkit.data.table_files import TABLE_BUILDERS
from toolkit.errors import InputError
from toolkit.hub.model_card import describe_model
from toolkit.hub.readme import CARD, read_text, render, split_metadata
from toolkit.hub.safety import Kind

BEGIN = "<!-- Written anew by each `toolkit push` up to the end mark; what you write around it stays."
END = "<!-- toolkit: end -->"
# The first mark contains a digest of the text around the block, and the generated metadata as JSON.
_BLOCK = re.compile(rf"{re.escape(BEGIN)} \[(\w*) (.*?)\] -->\n.*?{re.escape(END)}\n?", re.DOTALL)


def write_card(
    folder: Path, repo_id: str, kind: Kind, files: set[str], earlier: str | None = None, revision: str | None = None
) -> bytes:
    """Write the card of a folder of which `files` are pushed; its code examples name the branch or tag `revision`.

    It is based on the folder's README.md or on `earlier`, the one in the repository, whichever was edited since the
    last push. Raises `InputError` if both were, or if the metadata of one cannot be read.
    """
    local = read_text(folder / CARD) if (folder / CARD).is_file() else None
    base = _newer(local, earlier, str(folder))
    metadata, text = split_metadata(base, f"{folder if base == local else repo_id}/{CARD}")
    describe = _describe_dataset if kind == "dataset" else describe_model
    generated, block = describe(folder, repo_id, files, revision)
    before = _generated_before(text)
    edited = {name: value for name, value in metadata.items() if name != "model-index" and before.get(name) != value}
    merged = {**generated, **edited}
    if isinstance(tags := edited.get("tags"), list):
        added = [tag for tag in tags if tag not in before.get("tags", [])]
        merged["tags"] = list(dict.fromkeys([*added, *generated["tags"]]))
    if not _BLOCK.search(text):
        text = f"{text.strip() or '# ' + repo_id.rpartition('/')[2]}\n\n{BEGIN} [ ] -->\n{END}\n"
    text = f"---\n{yaml.safe_dump(merged, sort_keys=False, allow_unicode=True)}---\n\n{text.lstrip()}"
    note = json.dumps({name: value for name, value in generated.items() if name != "model-index"})
    block = f"{BEGIN} [{_digest(text)} {note}] -->\n\n{block.strip()}\n\n{END}\n"
    return _BLOCK.sub(lambda found: block, text, count=1).encode()


def _describe_dataset(folder: Path, repo_id: str, files: set[str], revision: str | None) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a data set's card; the arguments are those of `write_card`."""
    paths = [folder / name for name in sorted(files) if Path(name).suffix not in (".md", ".py")]
    found = find_data(folder, {suffix_of(path) for path in paths}).splits
    splits = {split: [path for path in of_split if path in paths] for split, of_split in found.items()}
    suffixes = {path.suffix for in_split in splits.values() for path in in_split}
    metadata: dict[str, Any] = {"tags": ["pretrain-transfer-toolkit"]}
    if len(suffixes) == 1 and suffixes <= {".txt", *TABLE_BUILDERS}:
        data_files = [
            {"split": split, "path": [path.relative_to(folder).as_posix() for path in in_split]}
            for split, in_split in splits.items()
        ]
        metadata["configs"] = [{"config_name": "default", "data_files": data_files}]
        pin = f', revision="{revision}"' if revision else ""
        snippet = f'from datasets import load_dataset\ndata = load_dataset("{repo_id}"{pin})\nprint(data)'
    else:
        snippet = f'from toolkit.hub import pull\npull("{repo_id}", "DIR", kind="dataset")  # then --data DIR'
    listed = "; ".join(f"{split} in {len(in_split)} files" for split, in_split in splits.items())
    note = f"From the command line: `toolkit pull {repo_id} DIR --repo_type dataset`, then `--data DIR`."
    return metadata, render(noun=f"A data set: {listed}", snippet=snippet, note=note)


def _generated_before(text: str) -> dict[str, Any]:
    """The metadata that the last push generated; empty if there was no push or the mark was edited."""
    found = _BLOCK.search(text)
    try:
        return dict(json.loads(found[2])) if found else {}
    except ValueError:
        return {}


def _newer(local: str | None, earlier: str | None, folder: str) -> str:
    """The card that was edited since the last push, which left a digest in both. Raises `InputError` if both were."""
    if local is None or earlier is None:
        return local or earlier or ""
    in_earlier, in_local = (found and found[1] for found in (_BLOCK.search(earlier), _BLOCK.search(local)))
    if _digest(local) in (_digest(earlier), in_earlier, in_local):  # as this or an earlier push left it
        return earlier
    if _digest(earlier) == in_earlier and in_local in (None, in_earlier):
        return local
    raise InputError(f"{folder}/{CARD}: edited here and on the Hub; take over what is there, or delete it here")


def _digest(text: str) -> str:
    """A digest of what people may edit: the metadata without figures, and the text around the block."""
    metadata, text = split_metadata(text, CARD)
    editable = {name: value for name, value in metadata.items() if name != "model-index"}
    words = [json.dumps(editable, sort_keys=True, default=str), *_BLOCK.sub("", text).split()]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]
