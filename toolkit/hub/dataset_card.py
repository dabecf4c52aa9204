"""What a card says about a data set: its splits, and how to load it."""

from pathlib import Path
from typing import Any

from toolkit.data.sources import TABLE_BUILDERS, files_by_split
from toolkit.hub.readme import render


def describe_dataset(folder: Path, repo_id: str, files: set[str], revision: str | None) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a data set's card; the arguments are those of `write_card`."""
    paths = [folder / name for name in sorted(files) if Path(name).suffix not in (".md", ".py")]
    splits = files_by_split(folder, paths)
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
