"""Find what the user named: a file, a folder, a glob, a data set of the Hub, or `sample`."""

import glob
import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from toolkit.errors import InputError, first_line
from toolkit.runs.results import REPOSITORY

SAMPLE = "sample"
SAMPLE_TREEBANK = Path(__file__).parent / "samples" / "treebank"
TABLE_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
USUAL_TEXT_COLUMNS = ("text", "sentence", "content", "document")
USUAL_LABEL_COLUMNS = ("label", "labels", "category", "class")
# What files of a split are called, in the order in which they are looked for.
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}

_HUB_ID = re.compile(rf"{REPOSITORY.pattern}(:[\w.-]+)?")


def suffix_of(path: Path) -> str:
    """The suffix that tells the format: `.txt` of `a.txt`, `a.TXT` and `a.txt.gz`."""
    return (Path(path.stem).suffix if path.suffix == ".gz" else path.suffix).lower()


def find_files(source: str, suffixes: set[str], split: str | None) -> list[Path] | None:
    """The files behind a source, sorted; None where `source` is a Hub id.

    Of a folder those files are taken whose names, or the names of their folders, say `split`; where no name says any
    split, all belong to `train`.
    Raises `InputError` where nothing is found.
    """
    expected = ", ".join(sorted(suffixes))
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if _is_file(p) and suffix_of(p) in suffixes)
        if not files:
            raise InputError(f"{source}: no data in this folder, expected files that end in {expected}")
        return files_of_split(source, files, split or "train")
    if path.is_file():
        return [_known(path, suffixes, expected)]
    if glob.has_magic(source):
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        if not files:
            raise InputError(f"{source}: no file matches this pattern")
        return [_known(file, suffixes, expected) for file in files if _is_file(file)]
    if _HUB_ID.fullmatch(source) and suffix_of(path) not in suffixes and not path.parent.is_dir():
        return None
    raise InputError(f"{source}: no such file, folder or pattern (nor a Hub id like org/name, nor '{SAMPLE}')")


def _is_file(path: Path) -> bool:
    """Also a link that leads nowhere, which is named where it is read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _known(path: Path, suffixes: set[str], expected: str) -> Path:
    if suffix_of(path) not in suffixes:
        raise InputError(f"{path}: cannot tell the format from the name, expected one that ends in {expected}")
    return path


def files_of_split(source: str, files: list[Path], split: str) -> list[Path]:
    names = SPLIT_NAMES if split in SPLIT_NAMES else {**SPLIT_NAMES, split: (re.escape(split.lower()),)}
    splits = files_by_split(Path(source).expanduser(), files, names)
    if split not in splits:
        raise InputError(f"{source}: no split '{split}' in this folder, found {', '.join(splits)}")
    return splits[split]


def files_by_split(
    root: Path, files: Sequence[Path], names: Mapping[str, tuple[str, ...]] = SPLIT_NAMES
) -> dict[str, list[Path]]:
    """Those files of each split, in the order of `names`, whose names below `root` say it; where none says any, all
    belong to `train`."""
    said = {file: _split_of(file.relative_to(root).parts, names) for file in files}
    if not any(said.values()):
        said = dict.fromkeys(files, "train")
    found = {split: [file for file in files if said[file] == split] for split in names}
    return {split: of_split for split, of_split in found.items() if of_split}


def _split_of(names: Sequence[str], splits: Mapping[str, tuple[str, ...]] = SPLIT_NAMES) -> str | None:
    """The split that the first of the names which says any says: of `train/test_drive.txt` it is train."""
    for name in names:
        for split, patterns in splits.items():
            if re.search(rf"(^|[^a-z])({'|'.join(patterns)})([^a-z]|$)", name.lower()):
                return split
    return None


def splits_of(source: str, suffixes: set[str], class_folders: Iterable[str] = ()) -> list[str]:
    """The splits that a folder has files for, or a data set of the Hub; none of a single file or a pattern.

    Of a folder with class folders they are those in `class_folders`.
    """
    if found := [split for split in SPLIT_NAMES if split in class_folders]:
        return found
    if source == SAMPLE:
        return list(SPLIT_NAMES)
    if not Path(source).expanduser().is_dir():
        return _splits_of_hub(source) if find_files(source, suffixes, None) is None else []
    found = []
    for split in SPLIT_NAMES:
        try:
            find_files(source, suffixes, split)
        except InputError:
            continue
        found.append(split)
    return found


def find_class_folders(source: str, suffixes: set[str]) -> dict[str, list[tuple[Path, str]]]:
    """For each split the files that stand in folders called like their label: (file, label).

    The folders are `LABEL/` or `SPLIT/LABEL/`; without splits all belong to `train`. Empty where there are none.
    """
    root = Path(source).expanduser()
    found: dict[str, list[tuple[Path, str]]] = {}
    for file in sorted(root.rglob("*")) if root.is_dir() else []:
        *folders, _ = file.relative_to(root).parts
        if folders and file.is_file() and suffix_of(file) in suffixes:
            split = _split_of(folders[:1]) if len(folders) > 1 else None
            found.setdefault(split or "train", []).append((file, folders[-1]))
    return found


def class_files_of_split(source: str, folders: dict[str, list[tuple[Path, str]]], split: str | None):
    """The files of one split of what `find_class_folders` found, and beside them their labels. Raises `InputError`."""
    split = split or "train"
    if split not in folders:
        raise InputError(f"{source}: no split '{split}' in this folder, found {', '.join(folders)}")
    return [file for file, _ in folders[split]], [label for _, label in folders[split]]


def find_inputs(words: Sequence[str]) -> list[str | Path]:
    """What a user gave to label: a path where a word names a file or folder, else the word itself, a text."""
    return [Path(word) if os.path.exists(word) else word for word in words]


def open_text(path: Path) -> IO[str]:
    """A text file, decompressed where it ends in `.gz`."""
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")


def read_text(path: Path) -> str:
    """All of a text file. Raises `InputError` like `check_readable_text`."""
    check_readable_text(path)
    with open_text(path) as file:
        return file.read()


def check_readable_text(path: Path) -> None:
    """Raises `InputError` where a text file is empty, binary or not UTF-8; names the line."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            start = file.read(8192)
            if not start:
                raise InputError(f"{path}: the file is empty")
            if b"\0" in start:
                raise InputError(f"{path}: this is a binary file, expected text in UTF-8")
            file.seek(0)
            for number, line in enumerate(file, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}: line {number} is not UTF-8 (byte 0x{error.object[error.start]:02x} at column "
                        f"{error.start + 1}); convert it, for example: iconv -f LATIN1 -t UTF-8"
                    ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def load_table(source: str, files: list[Path] | None, split: str | None):
    """The rows of jsonl, csv or parquet files, or of a Hub data set (`files` None), as a `datasets.Dataset`."""
    import datasets

    if files is None:
        name, _, config = source.partition(":")
        return ask(source, datasets.load_dataset, name, config or None, split=split or "train")
    builders = {TABLE_BUILDERS[suffix_of(file)] for file in files}
    if len(builders) > 1:
        raise InputError(f"{source}: files of several formats, expected one of {', '.join(TABLE_BUILDERS)}")
    for file in files:
        if suffix_of(file) != ".parquet":
            check_readable_text(file)
    names = [str(file) for file in files]
    return ask(source, datasets.load_dataset, builders.pop(), data_files=names, split="train")


def files_of_hub(source: str, split: str) -> list[str]:
    """The files of a split of a Hub data set, as `hf://datasets/org/name@commit/path`. Raises `InputError`."""
    import datasets

    name, _, config = source.partition(":")
    files = ask(source, datasets.load_dataset_builder, name, config or None).config.data_files
    if files is None:
        raise InputError(f"{source}: the Hub cannot be asked which files it has; unset HF_HUB_OFFLINE, or pull it")
    if split not in files:
        raise InputError(f"{source}: no split '{split}' in it, found {', '.join(map(str, files))}")
    return [str(file) for file in files[split]]


def _splits_of_hub(source: str) -> list[str]:
    import datasets

    name, _, config = source.partition(":")
    found = ask(source, datasets.get_dataset_split_names, name, config or None)
    return [split for split in SPLIT_NAMES if split in found]


def ask(source: str, load: Callable, *arguments, **flags):
    """What a function of `datasets` gives. Raises `InputError` where it cannot read the source."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return load(*arguments, **flags)
    except (OfflineModeIsEnabled, ConnectionError, HfHubHTTPError) as error:
        raise InputError(
            f"{source}: not a local file, and the Hub cannot be asked for it ({first_line(error)}); "
            "check the path, HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from None
    except (DatasetGenerationError, DatasetNotFoundError, OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{source}: cannot be read ({first_line(error.__cause__ or error)})") from None
    except ValueError as error:
        raise InputError(f"{source}: {first_line(error)}") from None


def choose_column(source: str, columns: list[str], flag: str, named: str | None, usual: tuple[str, ...]) -> str:
    """The column that the user named, else the first of the usual names that is there."""
    if named is not None:
        if named not in columns:
            raise InputError(f"--{flag} {named}: no such column in {source}, found {', '.join(columns)}")
        return named
    for name in usual:
        if name in columns:
            return name
    raise InputError(
        f"{source}: none of the columns {', '.join(columns)} is called {' or '.join(usual)}, use --{flag}"
    )


def labels_of_table(source: str, rows, named: str | None, flag: str = "label_column") -> list[str]:
    """The labels of the rows, as strings, from a column of `ClassLabel`, strings or whole numbers.

    Raises `InputError` where there is no such column, or nothing in some row of it.
    """
    column = choose_column(source, rows.column_names, flag, named, USUAL_LABEL_COLUMNS)
    kind, names = rows.features[column].dtype, getattr(rows.features[column], "names", None)
    if not names and not (kind in ("string", "large_string", "bool") or "int" in kind):
        raise InputError(f"{source}: the column '{column}' holds {kind}, expected labels: strings or whole numbers")
    return [names[value] if names else str(value) for value in full_column(source, rows, column)]


def full_column(source: str, rows, column: str) -> list:
    """The values of a column. Raises `InputError` where a row has none."""
    values = rows[column][:]
    if None in values:
        raise InputError(f"{source}: row {values.index(None) + 1} has no {column}")
    return values
