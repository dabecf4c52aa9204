"""Which files of a folder are data, and of which split: one rule for texts, tables, treebanks and class folders.

1. Hidden files and folders, those of the operating system, output folders of runs, and `a.txt.gz` beside `a.txt` are
   no data.
2. A split is named by a folder or by a file: `train`, `training`; `validation`, `valid`, `val`, `development`, `dev`,
   `evaluation`, `eval`; `test`, `testing`; in any case, perhaps with a number (`train2017`, `train-00000-of-00002`).
   Folders are looked at first, from the top. What is inside a folder of a split belongs to it, whatever its name.
3. Inside a longer name (`en-train.txt`) the word counts if all names beside it have one, or if another name differs
   from it only in that word (`en-test.txt`): `dev_diary.txt` beside `letters.txt` is no validation split. If most
   names have one, and neither holds, it cannot be told.
4. Folders beside those of splits are refused. Files beside those of splits are left out, and named.
5. Without any name of a split, all files are for training. So are files that a pattern selects from one split alone.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import InputError
from toolkit.runs.output import is_run

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "development", "dev", "evaluation", "eval"),
    "test": ("test", "testing"),
}
USUAL_SUFFIXES = {".txt", ".conllu", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".tar"}
USUAL_SUFFIXES |= {".png", ".jpg", ".jpeg", ".wav"}
SYSTEM_NAMES = {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
SYSTEM_NAMES |= {"thumbs.db", "ehthumbs.db", "desktop.ini"}
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # as in the image folders of `datasets`
HIDDEN, SYSTEM, RUN = "hidden", "of the operating system", "of a run of this toolkit"
OTHER_FORMAT, BESIDE, LINKED = "of another format", "beside the splits", "the same as another file"
PACKED = "compressed copies"

_SHARD = r"(?:[-_. ]?\d+)*(?:[-_. ]?of[-_. ]?\d+)?"
_WORD = re.compile(r"[^\W\d_]+")


@dataclass
class DataFiles:
    """The files of a folder.

    Attributes:
        splits: The files of each split in the order of `SPLIT_NAMES`, each with the names of the folders that it is in
            below the folder of the split.
        left_out: Files and folders that are no data, by the reason.
        metadata: The files `metadata.csv`, `metadata.jsonl` and `metadata.parquet`, which describe other files.
    """

    splits: dict[str, dict[Path, tuple[str, ...]]] = field(default_factory=dict)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    metadata: list[Path] = field(default_factory=list)

    @classmethod
    def named(cls, *splits: str) -> "DataFiles":
        """Splits of a source that is no folder."""
        return cls({split: {} for split in splits})

    def leave_out(self, reason: str, *paths: Path) -> None:
        if paths:
            self.left_out.setdefault(reason, []).extend(paths)


@dataclass
class _Folder:
    path: Path
    folders: "list[_Folder]" = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def all_files(self, *above: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """All files below, with the names of the folders that they are in."""
        yield from ((file, above) for file in self.files)
        for folder in self.folders:
            yield from folder.all_files(*above, folder.path.name)


def suffix_of(path: Path) -> str:
    """The suffix that names the format: `.txt` of `a.txt`, `a.TXT` and `a.txt.gz`."""
    return (Path(path.stem).suffix if path.suffix == ".gz" else path.suffix).lower()


def list_suffixes(kinds: Collection[str]) -> str:
    """The usual ones among suffixes, for messages."""
    usual = sorted(kind for kind in kinds if kind in USUAL_SUFFIXES)
    return ", ".join(usual if len(usual) == len(kinds) else [*usual, "…"])


def split_named(name: str) -> str:
    """The usual name of a split: `validation` for `dev`; a name that is not usual stays."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), name)


def find_data(root: Path, kinds: Collection[str], other_split: str | None = None) -> DataFiles:
    """Find the files of each split below a folder.

    Args:
        root: The folder.
        kinds: Suffixes of the formats that can be read.
        other_split: Name of a split that is not usual.

    Raises:
        InputError: It cannot be told which split a folder or a file belongs to.
    """
    found = DataFiles()
    names = SPLIT_NAMES if other_split is None else {**SPLIT_NAMES, other_split: (other_split.lower(),)}
    tree = _read(root, kinds, found, ())
    assigned = _assign(tree, names, found)
    splits = {"train": dict(tree.all_files())} if assigned is None else assigned
    found.splits = {split: dict(sorted(splits[split].items())) for split in names if splits.get(split)}
    _leave_out_links(found)
    return found


def find_among(files: Sequence[Path]) -> DataFiles:
    """The splits of files that match a pattern; empty if no name is that of a split, or all are of one split."""
    found = DataFiles()
    if len(files) < 2:
        return found
    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    tree = _Folder(root)
    for file in files:
        folder = tree
        for name in file.absolute().parent.relative_to(root).parts:
            below = next((below for below in folder.folders if below.path.name == name), None)
            if below is None:
                below = _Folder(folder.path / name)
                folder.folders.append(below)
            folder = below
        folder.files.append(file)
    assigned = _assign(tree, SPLIT_NAMES, found) or {}
    if len(assigned) < 2:
        return DataFiles()
    found.splits = {split: dict(sorted(assigned[split].items())) for split in SPLIT_NAMES if split in assigned}
    _leave_out_links(found)
    return found


def find_all(root: Path, kinds: Collection[str], found: DataFiles) -> list[Path]:
    """The files of a folder whatever their split, to predict; what is no data is added to what `found` leaves out.

    Raises `InputError` if there is none.
    """
    if files := sorted(file for file, _ in _read(root, kinds, found, ()).all_files()):
        return files
    raise InputError(f"{root}: nothing to read in this folder, expected files that end in {list_suffixes(kinds)}")


def _read(path: Path, kinds: Collection[str], found: DataFiles, above: tuple[tuple[int, int], ...]) -> _Folder:
    """Read a folder and those below, without the files that are no data and without folders that hold no data.

    `above` identifies the folders above: a link to one of them is not followed.
    """
    folder, this = _Folder(path), _identity(path)
    for entry in sorted(path.iterdir()):
        if reason := _reason_to_leave_out(entry, kinds):
            found.leave_out(reason, entry)
        elif not entry.is_dir():
            (folder.files if suffix_of(entry) in kinds else found.metadata).append(entry)
        elif _identity(entry) not in (*above, this):
            below = _read(entry, kinds, found, (*above, this))
            if below.files or below.folders:
                folder.folders.append(below)
    return folder


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _reason_to_leave_out(entry: Path, kinds: Collection[str]) -> str | None:
    if entry.name.startswith("."):
        return HIDDEN
    if entry.name.lower() in SYSTEM_NAMES:
        return SYSTEM
    if entry.is_dir():
        return RUN if is_run(entry) else None
    if entry.suffix == ".gz" and entry.with_suffix("").is_file():
        return PACKED
    return None if suffix_of(entry) in kinds or entry.name.lower() in METADATA_FILES else OTHER_FORMAT


def _assign(
    folder: _Folder, names: Mapping[str, Sequence[str]], found: DataFiles
) -> dict[str, dict[Path, tuple[str, ...]]] | None:
    """The files of each split, by the names of folders and files; None if no name is that of a split."""
    splits: dict[str, dict[Path, tuple[str, ...]]] = {}
    if len(folder.folders) == 1 and not folder.files and _holds_splits(folder.folders[0], names):
        return _assign(folder.folders[0], names, found)  # whatever its name: Testing/Training and Testing/Testing
    if by_folder := splits_by_name([below.path.name for below in folder.folders], names, folder.path):
        for below in folder.folders:
            if below.path.name not in by_folder:
                known = " and ".join(sorted(by_folder))
                raise InputError(
                    f"{below.path}: a folder beside {known}, whose name is that of no split; move it, or put what are "
                    "labels into a folder called train"
                )
            splits.setdefault(by_folder[below.path.name], {}).update(below.all_files())
        found.leave_out(BESIDE, *folder.files)
        return splits
    if by_file := splits_by_name(list(map(_stem, folder.files)), names, folder.path):
        for file in folder.files:
            if split := by_file.get(_stem(file)):
                splits.setdefault(split, {})[file] = ()
            else:
                found.leave_out(BESIDE, file)
        for below in folder.folders:
            found.leave_out(BESIDE, *(file for file, _ in below.all_files()))
        return splits
    of_folders = {below.path: _assign(below, names, found) for below in folder.folders}
    without = [path for path, of_folder in of_folders.items() if of_folder is None] + folder.files
    if len(without) == len(of_folders) + len(folder.files):
        return None
    if without:
        other = next(path for path, of_folder in of_folders.items() if of_folder is not None)
        raise InputError(f"{without[0]}: of no split, while there are splits in {other}; move one of them")
    for path, of_folder in of_folders.items():
        above = () if len(of_folders) == 1 else (path.name,)
        for split, files in (of_folder or {}).items():
            splits.setdefault(split, {}).update({file: (*above, *below) for file, below in files.items()})
    return splits


def _holds_splits(folder: _Folder, names: Mapping[str, Sequence[str]]) -> bool:
    """Whether all folders in a folder are those of splits, of two at least."""
    below = [each.path.name for each in folder.folders]
    by_folder = splits_by_name(below, names, folder.path)
    return len(by_folder) == len(below) and len(set(by_folder.values())) > 1


def _stem(file: Path) -> str:
    """The name of a file without the suffixes of its format."""
    return file.name[: len(file.name) - len("".join(file.suffixes[-2:] if file.suffix == ".gz" else [file.suffix]))]


def splits_by_name(
    beside: Sequence[str], names: Mapping[str, Sequence[str]] = SPLIT_NAMES, folder: Path = Path()
) -> dict[str, str]:
    """The split of each name that is that of a split, of files or folders beside each other.

    Raises `InputError` if a name without a split has a counterpart with one, such as `reviews` and `reviews_test`, or
    is beside more names with one that are not alike, such as `train-clean`, `test-other` and `notes`.
    """
    exact, longer = {}, {}
    beside = [*dict.fromkeys(beside)]  # files of several formats may have one name
    for name in beside:
        for split, words in names.items():
            if re.fullmatch(f"(?:{'|'.join(map(re.escape, words))}){_SHARD}", name.lower()):
                exact[name] = split
        inside = {split for split, words in names.items() if set(words) & set(_WORD.findall(name.lower()))}
        if len(inside) == 1:
            (longer[name],) = inside
    if exact or len(longer) == len(beside):
        return exact or longer
    all_words = {word for of_split in names.values() for word in of_split}
    patterns = {name: _pattern(name, all_words) for name in beside}
    for name in longer:
        if name_without := next((n for n in beside if n not in longer and patterns[n] == patterns[name]), None):
            raise InputError(
                f"{folder / name_without}: is it for training? There is {name} beside it; give both a name with a "
                f"split, such as {name_without}_train"
            )
    alike = {
        name: split
        for name, split in longer.items()
        if any(patterns[name] == patterns[other] and split != longer[other] for other in longer)
    }
    if not alike and len(set(longer.values())) > 1 and 2 * len(longer) > len(beside):
        name_without = next(name for name in beside if name not in longer)
        raise InputError(
            f"{folder / name_without}: of which split is it? There are {' and '.join(list(longer)[:2])} beside it; "
            "give it a name with a split, or put all into a folder called train"
        )
    return alike


def _pattern(name: str, words: Collection[str]) -> tuple[str, ...]:
    """The words and numbers of a name, without those that name a split; all numbers are alike."""
    parts = re.findall(r"[^\W\d_]+|\d+", name.lower())
    return tuple("#" if part.isdigit() else part for part in parts if part not in words)


def _leave_out_links(found: DataFiles) -> None:
    """Keep one of several links to a file. Raises `InputError` if they are in different splits."""
    seen: dict[tuple[int, int], tuple[str, Path]] = {}
    for split, files in found.splits.items():
        for file in list(files):
            if not file.exists():
                continue  # a link to nowhere is reported when it is read
            first_split, first = seen.setdefault(_identity(file), (split, file))
            if first_split != split:
                raise InputError(f"{file}: is the same file as {first}, in another split; remove one of the two links")
            if first != file:
                del files[file]
                found.leave_out(LINKED, file)
