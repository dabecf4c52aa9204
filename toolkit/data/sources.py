"""Find and open a source that the user names: a file, folder, glob, Hub data set, or `sample`."""

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from toolkit.data.files import describe_bad_utf8
from toolkit.data.rows import num_repeated
from toolkit.data.splits import (
    SPLIT_NAMES,
    USUAL_SUFFIXES,
    DataFiles,
    find_among,
    find_data,
    list_suffixes,
    split_named,
    suffix_of,
)
from toolkit.data.summary import DataSummary
from toolkit.data.table_files import TABLE_BUILDERS, ask, name_and_config
from toolkit.errors import InputError
from toolkit.runs.output import is_run
from toolkit.runs.results import REPOSITORY

SAMPLE = "sample"
NO_LABEL_FOLDER = "in no folder of a label"
SAMPLE_TREEBANK = Path(__file__).parent / "samples" / "treebank"

_BEGINS_PATH = re.compile(r"~?/|\.\.?/")
_HUB_ID = re.compile(rf"{REPOSITORY.pattern}(:[\w.-]+)?")


class Source:
    """A source of rows that the user named; it is looked into once, and each split is loaded once.

    Args:
        name: What the user named.
        found: Its splits, with their files if they are on this machine; no split of a single file.
        load: Loads a split as a `datasets.Dataset`; None is the split for training, or all of a single file.
        declared_labels: The names of labels in the order of their ids, if the source declares them.
    """

    def __init__(
        self,
        name: str,
        found: DataFiles,
        load: Callable[[str | None], Any],
        declared_labels: Callable[[], Sequence[str] | None] = lambda: None,
    ):
        self.name, self.found, self.load, self.declared_labels = name, found, cache(load), cache(declared_labels)
        self.summary = DataSummary(name, found)
        self.num_repeated = cache(self._count_repeated)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.found.splits)

    def _count_repeated(self, split: str) -> int:
        """How many examples of another split are also in that for training; 0 unless both are splits of the source."""
        if split == "train" or not {"train", split} <= set(self.splits):
            return 0
        return num_repeated(self.load(split), self.load("train"))

    def with_rows(self, change: Callable[[Any], Any]) -> "Source":
        """The same source, whose rows `change` has selected or completed."""
        return Source(self.name, self.found, lambda split: change(self.load(split)), self.declared_labels)


def find_files(source: str, kinds: set[str], split: str | None) -> list[Path] | None:
    """Find the files of a file, folder or glob, sorted; None for a Hub id.

    `kinds` are the suffixes of the formats that can be read, `split` (default: train) is which files to take if names
    of files or folders are those of splits. Raises `InputError` if there is no such file or split, or it cannot be
    told what is of which split.
    """
    found = find_local(source, kinds, split)
    return list(files_of_split(source, found, split)) if found.splits else _matching_files(source, kinds)


def _matching_files(source: str, kinds: set[str]) -> list[Path] | None:
    """The file, or the files that match a pattern; None for a Hub id. Raises `InputError`."""
    path = Path(source).expanduser()
    is_glob = glob.has_magic(source)
    if path.is_file() or is_glob:
        files = [path] if path.is_file() else [Path(name) for name in glob.glob(str(path), recursive=True)]
        if not files:
            raise InputError(f"{source}: no file matches this pattern")
        files = sorted(file for file in files if not file.is_dir())  # a link to nowhere is reported when it is read
        if unknown := [file for file in files if suffix_of(file) not in kinds]:
            raise InputError(
                f"{unknown[0]}: cannot tell the format from the name, expected one that ends in {list_suffixes(kinds)}"
            )
        return files
    if _HUB_ID.fullmatch(source) and suffix_of(path) not in kinds and not path.parent.is_dir():
        return None
    raise InputError(f"{source}: no such file, folder or pattern (nor a Hub id like org/name, nor '{SAMPLE}')")


def find_folder(source: str, kinds: set[str], split: str | None = None) -> DataFiles:
    """What `find_data` finds in a folder. Raises `InputError` if it is the folder of a run, or holds no data."""
    path = Path(source).expanduser()
    if is_run(path):
        raise InputError(f"{source}: this is the output folder of a run; name a folder of data, or a file in it")
    found = find_data(path, kinds, None if split is None or split_named(split) in SPLIT_NAMES else split)
    if not found.splits:
        raise InputError(f"{source}: no data in this folder, expected files that end in {list_suffixes(kinds)}")
    return found


def files_of_split(source: str, found: DataFiles, split: str | None) -> dict[Path, tuple[str, ...]]:
    """The files of a split (default: train), with the folders that they are in. Raises `InputError`."""
    split = split_named(split or "train")
    if split not in found.splits:
        raise InputError(f"{source}: no split '{split}' in it, found {', '.join(found.splits)}")
    return found.splits[split]


def find_splits(source: str, kinds: set[str]) -> DataFiles:
    """The splits of a source, with their files if they are on this machine; none of a single file."""
    if source == SAMPLE:
        return DataFiles.named(*SPLIT_NAMES)
    found = find_local(source, kinds)
    if found.splits or _matching_files(source, kinds) is not None:
        return found
    import datasets

    splits = ask(source, datasets.get_dataset_split_names, *name_and_config(source))
    return DataFiles.named(*(split for split in SPLIT_NAMES if split in splits))


def find_local(source: str, kinds: set[str], split: str | None = None) -> DataFiles:
    """Like `find_splits`, but empty for a Hub id, which is not asked. `split` may be a name that is not usual."""
    if source == SAMPLE:
        return DataFiles()
    if Path(source).expanduser().is_dir():
        return find_folder(source, kinds, split)
    return find_among(_matching_files(source, kinds) or ())


def files_to_load(source: str, found: DataFiles, kinds: set[str], split: str | None) -> list[Path] | None:
    """The files of a split of a source whose splits `find_splits` found; None for a Hub id. Raises `InputError`."""
    if any(found.splits.values()) and split_named(split or "train") in found.splits:
        return list(files_of_split(source, found, split))
    return find_files(source, kinds, split)


def find_class_folders(source: str, kinds: set[str]) -> DataFiles | None:
    """What is in a folder with a folder for each label, `LABEL/` or `SPLIT/LABEL/`; None if this is no such folder.

    Beside such folders a `.json` is no table. Raises `InputError` like `in_label_folders`.
    """
    root = Path(source).expanduser()
    tables = set(TABLE_BUILDERS) - {".json"}
    if not root.is_dir() or is_run(root) or any(suffix_of(file) in tables for file in visible_files(root)):
        return None
    return in_label_folders(source, find_data(root, kinds))


def in_label_folders(source: str, found: DataFiles) -> DataFiles | None:
    """Leave out the files that are in no folder of a label; None if no file is in one.

    Raises `InputError` if labels are named on several levels.
    """
    depths = {len(folders): file for files in found.splits.values() for file, folders in files.items() if folders}
    if len(depths) > 1:
        first, second = [depths[depth].parent for depth in sorted(depths)[:2]]
        raise InputError(f"{source}: {first} and {second} are folders of labels on different levels; move one of them")
    with_labels = {}
    for split, files in found.splits.items():
        found.leave_out(NO_LABEL_FOLDER, *(file for file, folders in files.items() if not folders))
        with_labels[split] = {file: folders for file, folders in files.items() if folders}
    found.splits = {split: files for split, files in with_labels.items() if files}
    return found if found.splits else None


def visible_files(folder: Path) -> Iterator[Path]:
    """The files that are directly in a folder and not hidden."""
    return (path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def find_inputs(words: Sequence[str]) -> list[str | Path]:
    """The inputs that a user gave: a path if a word names a file or folder, else the word itself, a text.

    Raises `InputError` for a word that can only be a path, such as `reviews.csv` or `~/reviews`, and names nothing,
    and for a text that is not UTF-8.
    """
    found: list[str | Path] = []
    for word in words:
        path = Path(word).expanduser()
        if os.path.lexists(path):
            found.append(path)
        elif not re.search(r"\s", word) and (_BEGINS_PATH.match(word) or suffix_of(Path(word)) in USUAL_SUFFIXES):
            raise InputError(f"{word}: no such file or folder")
        else:
            found.append(_text_in_utf8(word))
    return found


def _text_in_utf8(word: str) -> str:
    """A word of the command line as it reads in UTF-8, whatever the locale. Raises `InputError`."""
    try:
        return word.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{word}: {describe_bad_utf8(error)}") from None
