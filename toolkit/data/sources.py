"""Find, open and read a source that the user names: a file, folder, glob, Hub data set, or `sample`."""

import glob
import io
import os
import re
import tarfile
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from natsort import natsorted, ns

from toolkit.data.files import describe_bad_utf8, open_file
from toolkit.data.splits import (
    SPLIT_NAMES,
    USUAL_SUFFIXES,
    DataFiles,
    find_data,
    list_suffixes,
    split_named,
    suffix_of,
)
from toolkit.data.summary import DataSummary
from toolkit.errors import InputError, first_line
from toolkit.runs.output import is_run
from toolkit.runs.results import REPOSITORY

SAMPLE = "sample"
IGNORED_ID = -100  # the target that losses of torch ignore
NO_LABEL_FOLDER = "in no folder of a label"
SAMPLE_TREEBANK = Path(__file__).parent / "samples" / "treebank"
TABLE_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
USUAL_TEXT_COLUMNS = ("text", "sentence", "content", "document")
USUAL_LABEL_COLUMNS = ("label", "labels", "category", "class")

_BEGINS_PATH = re.compile(r"~?/|\.\.?/")
_HUB_ID = re.compile(rf"{REPOSITORY.pattern}(:[\w.-]+)?")


class Source:
    """A source of rows that the user named; it is looked into once, and each split is loaded once.

    Args:
        name: What the user named.
        found: Its splits, with their files if it is a folder; no split of a single file or a pattern.
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

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.found.splits)

    def with_rows(self, change: Callable[[Any], Any]) -> "Source":
        """The same source, whose rows `change` has selected or completed."""
        return Source(self.name, self.found, lambda split: change(self.load(split)), self.declared_labels)


def find_files(source: str, kinds: set[str], split: str | None) -> list[Path] | None:
    """Find the files of a file, folder or glob, sorted; None for a Hub id.

    `kinds` are the suffixes of the formats that can be read, `split` (default: train) is which files of a folder to
    take. Raises `InputError` if there is no such file or split, or it cannot be told what is of which split.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return list(files_of_split(source, find_folder(source, kinds, split), split))
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
        raise InputError(f"{source}: no split '{split}' in this folder, found {', '.join(found.splits)}")
    return found.splits[split]


def find_splits(source: str, kinds: set[str]) -> DataFiles:
    """The splits of a source, with their files if it is a folder; none of a single file or a pattern."""
    if source == SAMPLE:
        return DataFiles.named(*SPLIT_NAMES)
    if Path(source).expanduser().is_dir():
        return find_folder(source, kinds)
    if find_files(source, kinds, None) is not None:
        return DataFiles()
    import datasets

    splits = ask(source, datasets.get_dataset_split_names, *_name_and_config(source))
    return DataFiles.named(*(split for split in SPLIT_NAMES if split in splits))


def find_local(source: str, kinds: set[str]) -> DataFiles:
    """Like `find_splits`, but empty for a Hub id, which is not asked."""
    return find_folder(source, kinds) if Path(source).expanduser().is_dir() else DataFiles()


def files_to_load(source: str, found: DataFiles, kinds: set[str], split: str | None) -> list[Path] | None:
    """The files of a split of a source whose splits `find_splits` found; None for a Hub id. Raises `InputError`."""
    if not Path(source).expanduser().is_dir():
        return find_files(source, kinds, split)
    if split is not None and split_named(split) not in found.splits:
        found = find_folder(source, kinds, split)  # a split whose name is not usual
    return list(files_of_split(source, found, split))


def find_class_folders(source: str, kinds: set[str]) -> DataFiles | None:
    """What is in a folder with a folder for each label, `LABEL/` or `SPLIT/LABEL/`; None if this is no such folder.

    A file that is in no folder of a label is left out. Raises `InputError` if labels are named on several levels.
    """
    root = Path(source).expanduser()
    if not root.is_dir() or is_run(root) or any(suffix_of(file) in TABLE_BUILDERS for file in visible_files(root)):
        return None
    found = find_data(root, kinds)
    depths: dict[int, Path] = {}
    for files in found.splits.values():
        for file, folders in list(files.items()):
            if folders:
                depths.setdefault(len(folders), file)
            else:
                del files[file]
                found.leave_out(NO_LABEL_FOLDER, file)
    if len(depths) > 1:
        first, second = [depths[depth].parent for depth in sorted(depths)[:2]]
        raise InputError(f"{source}: {first} and {second} are folders of labels on different levels; move one of them")
    found.splits = {split: files for split, files in found.splits.items() if files}
    return found if found.splits else None


def visible_files(folder: Path) -> Iterator[Path]:
    """The files that are directly in a folder and not hidden."""
    return (path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def find_inputs(words: Sequence[str]) -> list[str | Path]:
    """The inputs that a user gave: a path if a word names a file or folder, else the word itself, a text.

    Raises `InputError` for a word that can only be a path, such as `reviews.csv` or `~/reviews`, and names nothing.
    """
    found: list[str | Path] = []
    for word in words:
        path = Path(word).expanduser()
        if os.path.lexists(path):
            found.append(path)
        elif not re.search(r"\s", word) and (_BEGINS_PATH.match(word) or suffix_of(Path(word)) in USUAL_SUFFIXES):
            raise InputError(f"{word}: no such file or folder")
        else:
            found.append(word)
    return found


def read_text(path: Path) -> str:
    """Read a text file, decompressed if its name ends in `.gz`, without a byte-order mark, with `\\n` as line ends.

    Raises `InputError` like `check_readable_text`.
    """
    check_readable_text(path)
    with io.TextIOWrapper(open_file(str(path)), encoding="utf-8-sig") as file:
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
    """Load rows of tables, or of a Hub data set (`files` None), as a `datasets.Dataset`.

    Tables are `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet`. All that a CSV holds is text: `01`, `1.0` and `NA` stay
    as they are.
    """
    import datasets

    if files is None:
        return ask(source, datasets.load_dataset, *_name_and_config(source), split=split or "train")
    builders = {TABLE_BUILDERS[suffix_of(file)] for file in files}
    if len(builders) > 1:
        raise InputError(f"{source}: files of several formats, expected one of {', '.join(TABLE_BUILDERS)}")
    for file in files:
        if suffix_of(file) != ".parquet":
            check_readable_text(file)
    if (builder := builders.pop()) == "csv":
        return datasets.concatenate_datasets(list(map(_load_csv, files)))
    return ask(source, datasets.load_dataset, builder, data_files=[str(file) for file in files], split="train")


def _load_csv(file: Path):
    """A CSV or TSV as a `datasets.Dataset` of strings. Raises `InputError`, with the row, if it is malformed."""
    import datasets
    from pyarrow import ArrowInvalid, csv, string

    format = csv.ParseOptions(delimiter="\t" if suffix_of(file) == ".tsv" else ",", newlines_in_values=True)
    try:
        with csv.open_csv(str(file), parse_options=format) as opened:
            names = opened.schema.names
        as_text = csv.ConvertOptions(column_types=dict.fromkeys(names, string()), strings_can_be_null=False)
        reading = csv.ReadOptions(use_threads=False)  # so that errors have numbers of rows
        table = csv.read_csv(str(file), read_options=reading, parse_options=format, convert_options=as_text)
    except ArrowInvalid as error:
        raise InputError(f"{file}: cannot be read ({first_line(error)})") from None
    return datasets.Dataset(datasets.table.InMemoryTable(table))


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
    """The labels of rows, as strings, from a column of `ClassLabel`, strings, whole numbers or truth values.

    Strings are compared without blanks around them and in the normal form NFC. Raises `InputError` if a row has no
    label, or the column holds something else.
    """
    column = choose_column(source, rows.column_names, flag, named, USUAL_LABEL_COLUMNS)
    check_label_type(source, rows, column)
    names = getattr(rows.features[column], "names", None)
    values = full_column(source, rows, column)
    if names is None and set(values) == {-1}:
        raise InputError(f"{source}: all rows have the label -1 in the column '{column}', which means no label")
    labels = [name_of_label(value, names) for value in values]
    if "" in labels:
        number = labels.index("") + 1
        raise InputError(f"{source}: row {number} has no {column}{f' ({values[number - 1]})' if names else ''}")
    return labels


def check_label_type(source: str, rows, column: str) -> None:
    """Raises `InputError`, which names the first row, if a column holds something else than labels."""
    import datasets

    feature = rows.features[column]
    kind = getattr(feature, "dtype", type(feature).__name__)
    is_value = isinstance(feature, datasets.Value | datasets.ClassLabel)
    if is_value and (kind in ("string", "large_string", "bool") or "int" in kind):
        return
    example = next((f", such as {value!r} in row {number}" for number, value in enumerate(rows[column], 1)), "")
    raise InputError(
        f"{source}: the column '{column}' holds {kind}{example}, expected labels: strings or whole numbers"
    )


def name_of_label(value: Any, names: Sequence[str] | None) -> str:
    """A label as a string; "" for no label: a negative id of `names`, torch's -100, or blanks."""
    if names is not None:
        return names[value] if value >= 0 else ""
    if value == IGNORED_ID:
        return ""
    return unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else str(value)


def order_labels(labels: Iterable[str], declared: Sequence[str] | None = None) -> list[str]:
    """Labels in the order of their ids: those that the data declares, then the others, numbers by their value."""
    declared = declared or ()
    return [*declared, *natsorted(set(labels).difference(declared), alg=ns.SIGNED)]


def declared_labels(source: str, named: str | None, usual: Sequence[str] = USUAL_LABEL_COLUMNS) -> list[str] | None:
    """The names of labels in the order of their ids, if tables in Parquet or a Hub data set declare them."""
    import datasets

    files = [] if source == SAMPLE else find_files(source, set(TABLE_BUILDERS), None)
    if files is None:
        features = ask(source, datasets.load_dataset_builder, *_name_and_config(source)).info.features or {}
    elif files and suffix_of(files[0]) == ".parquet":
        from pyarrow.parquet import read_schema

        features = datasets.Features.from_arrow_schema(read_schema(files[0]))
    else:
        return None
    feature = next((features[name] for name in ([named] if named else usual) if name in features), None)
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else list(names)


def full_column(source: str, rows, column: str) -> list:
    """The values of a column. Raises `InputError` if a row has none, or only blanks."""
    values = rows[column][:]
    for number, value in enumerate(values, start=1):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise InputError(f"{source}: row {number} has no {column}")
    return values
