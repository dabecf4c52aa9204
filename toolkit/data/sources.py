"""Find and read a source that the user names: a file, folder, glob, Hub data set, or `sample`."""

import glob
import io
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from toolkit.data.files import describe_bad_utf8, open_file
from toolkit.errors import InputError, first_line
from toolkit.runs.results import REPOSITORY

SAMPLE = "sample"
SAMPLE_TREEBANK = Path(__file__).parent / "samples" / "treebank"
TABLE_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
USUAL_TEXT_COLUMNS = ("text", "sentence", "content", "document")
USUAL_LABEL_COLUMNS = ("label", "labels", "category", "class")
# What names of files contain, in the order in which splits are looked for.
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}

_HUB_ID = re.compile(rf"{REPOSITORY.pattern}(:[\w.-]+)?")


def suffix_of(path: Path) -> str:
    """The suffix that names the format: `.txt` of `a.txt`, `a.TXT` and `a.txt.gz`."""
    return (Path(path.stem).suffix if path.suffix == ".gz" else path.suffix).lower()


def find_files(source: str, suffixes: set[str], split: str | None) -> list[Path] | None:
    """Find the files of a file, folder or glob, sorted; None for a Hub id.

    `suffixes` are those of the formats that can be read. `split` (default: train) says which files of a folder to
    take: a file belongs to the split that its name or the name of its folder contains; if no name contains any, all
    belong to train. Raises `InputError` if there is no such file or split.
    """
    expected = ", ".join(sorted(suffixes))
    path = Path(source).expanduser()
    if path.is_dir():
        files = _files_in(path, suffixes)
        if not files:
            raise InputError(f"{source}: no data in this folder, expected files that end in {expected}")
        split = split or "train"
        names = SPLIT_NAMES if split in SPLIT_NAMES else {**SPLIT_NAMES, split: (re.escape(split.lower()),)}
        splits = files_by_split(path, files, names)
        if split not in splits:
            raise InputError(f"{source}: no split '{split}' in this folder, found {', '.join(splits)}")
        return splits[split]
    is_glob = glob.has_magic(source)
    if path.is_file() or is_glob:
        files = [path] if path.is_file() else [Path(name) for name in glob.glob(str(path), recursive=True)]
        if not files:
            raise InputError(f"{source}: no file matches this pattern")
        files = sorted(file for file in files if _is_file(file))
        if unknown := [file for file in files if suffix_of(file) not in suffixes]:
            raise InputError(
                f"{unknown[0]}: cannot tell the format from the name, expected one that ends in {expected}"
            )
        return files
    if _HUB_ID.fullmatch(source) and suffix_of(path) not in suffixes and not path.parent.is_dir():
        return None
    raise InputError(f"{source}: no such file, folder or pattern (nor a Hub id like org/name, nor '{SAMPLE}')")


def _files_in(folder: Path, suffixes: set[str]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_file(path) and suffix_of(path) in suffixes)


def _is_file(path: Path) -> bool:
    """Whether this is a file, or a link to nowhere, which is reported when it is read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def files_by_split(
    root: Path, files: Sequence[Path], names: Mapping[str, tuple[str, ...]] = SPLIT_NAMES
) -> dict[str, list[Path]]:
    """The files of each split, by their names below `root`, in the order of `names`."""
    split_of = {file: _split_of(file.relative_to(root).parts, names) for file in files}
    if not any(split_of.values()):
        split_of = dict.fromkeys(files, "train")
    found = {split: [file for file in files if split_of[file] == split] for split in names}
    return {split: of_split for split, of_split in found.items() if of_split}


def _split_of(names: Sequence[str], splits: Mapping[str, tuple[str, ...]] = SPLIT_NAMES) -> str | None:
    """The split that the first of the names contains: train for `train/test_drive.txt`."""
    for name in names:
        for split, patterns in splits.items():
            if re.search(rf"(^|[^a-z])({'|'.join(patterns)})([^a-z]|$)", name.lower()):
                return split
    return None


def splits_of(source: str, suffixes: set[str], class_folders: Iterable[str] = ()) -> list[str]:
    """The splits of a folder or Hub data set, or of `class_folders`; none of a single file or a pattern."""
    path = Path(source).expanduser()
    if found := [split for split in SPLIT_NAMES if split in class_folders]:
        return found
    if source == SAMPLE:
        return list(SPLIT_NAMES)
    if path.is_dir():
        return list(files_by_split(path, _files_in(path, suffixes)))
    if find_files(source, suffixes, None) is not None:
        return []
    import datasets

    splits = ask(source, datasets.get_dataset_split_names, *_name_and_config(source))
    return [split for split in SPLIT_NAMES if split in splits]


def find_class_folders(source: str, suffixes: set[str]) -> dict[str, list[tuple[Path, str]]]:
    """The files of each split (default: train), with their labels, in folders `LABEL/` or `SPLIT/LABEL/`."""
    root = Path(source).expanduser()
    found: dict[str, list[tuple[Path, str]]] = {}
    for file in sorted(root.rglob("*")) if root.is_dir() else []:
        *folders, _ = file.relative_to(root).parts
        if folders and file.is_file() and suffix_of(file) in suffixes:
            split = _split_of(folders[:1]) if len(folders) > 1 else None
            found.setdefault(split or "train", []).append((file, folders[-1]))
    return found


def class_files_of_split(source: str, folders: dict[str, list[tuple[Path, str]]], split: str | None):
    """The files of a split of what `find_class_folders` found, and the label of each. Raises `InputError`."""
    split = split or "train"
    if split not in folders:
        raise InputError(f"{source}: no split '{split}' in this folder, found {', '.join(folders)}")
    return [file for file, _ in folders[split]], [label for _, label in folders[split]]


def find_inputs(words: Sequence[str]) -> list[str | Path]:
    """The inputs that a user gave: a path if a word names a file or folder, else the word itself, a text."""
    return [Path(word) if os.path.exists(word) else word for word in words]


def read_text(path: Path) -> str:
    """Read a text file, decompressed if its name ends in `.gz`. Raises `InputError` like `check_readable_text`."""
    check_readable_text(path)
    with io.TextIOWrapper(open_file(str(path)), encoding="utf-8") as file:
        return file.read()


def check_readable_text(path: Path) -> None:
    """Raises `InputError`, which names the line, if a text file is empty, binary or not UTF-8."""
    try:
        with open_file(str(path)) as file:
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
                    raise InputError(f"{path}: line {number} {describe_bad_utf8(error)}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def load_table(source: str, files: list[Path] | None, split: str | None):
    """Load rows of JSON Lines, CSV or Parquet files, or of a Hub data set (`files` None), as a `datasets.Dataset`."""
    import datasets

    if files is None:
        return ask(source, datasets.load_dataset, *_name_and_config(source), split=split or "train")
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

    files = ask(source, datasets.load_dataset_builder, *_name_and_config(source)).config.data_files
    if files is None:
        raise InputError(f"{source}: the Hub cannot be asked which files it has; unset HF_HUB_OFFLINE, or pull it")
    if split not in files:
        raise InputError(f"{source}: no split '{split}' in it, found {', '.join(map(str, files))}")
    return [str(file) for file in files[split]]


def _name_and_config(source: str) -> tuple[str, str | None]:
    name, _, config = source.partition(":")
    return name, config or None


def ask(source: str, load: Callable, *arguments, **flags):
    """Call a function of `datasets`. Raises `InputError` if it cannot read the source."""
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
    """The column that the user named with a flag, else the first that has a usual name. Raises `InputError`."""
    if named is not None:
        if named not in columns:
            raise InputError(f"--{flag} {named}: no such column in {source}, found {', '.join(columns)}")
        return named
    if found := [name for name in usual if name in columns]:
        return found[0]
    raise InputError(
        f"{source}: none of the columns {', '.join(columns)} is called {' or '.join(usual)}, use --{flag}"
    )


def labels_of_table(source: str, rows, named: str | None, flag: str = "label_column") -> list[str]:
    """The labels of rows, as strings, from a column of `ClassLabel`, strings or whole numbers. Raises `InputError`."""
    column = choose_column(source, rows.column_names, flag, named, USUAL_LABEL_COLUMNS)
    kind, names = rows.features[column].dtype, getattr(rows.features[column], "names", None)
    if not names and not (kind in ("string", "large_string", "bool") or "int" in kind):
        raise InputError(f"{source}: the column '{column}' holds {kind}, expected labels: strings or whole numbers")
    return [names[value] if names else str(value) for value in full_column(source, rows, column)]


def full_column(source: str, rows, column: str) -> list:
    """The values of a column. Raises `InputError` if a row has none."""
    values = rows[column][:]
    if None in values:
        raise InputError(f"{source}: row {values.index(None) + 1} has no {column}")
    return values
