"""Tables and data sets of the Hub: rows, their columns, and labels."""

import tarfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from natsort import natsort_keygen, ns

from toolkit.data.files import check_readable_text
from toolkit.data.splits import suffix_of
from toolkit.errors import InputError, first_line

IGNORED_ID = -100  # the target that losses of torch ignore
TABLE_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
USUAL_TEXT_COLUMNS = ("text", "sentence", "content", "document")
order_of_label = natsort_keygen(alg=ns.SIGNED)  # a key for sorting: numbers by their value, everything else as text
USUAL_LABEL_COLUMNS = ("label", "labels", "category", "class")


def load_table(source: str, files: list[Path] | None, split: str | None):
    """Load rows of tables, or of a Hub data set (`files` None), as a `datasets.Dataset`.

    Tables are `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet`. All that a CSV holds is text: `01`, `1.0` and `NA` stay
    as they are.
    """
    import datasets

    if files is None:
        return ask(source, datasets.load_dataset, *name_and_config(source), split=split or "train")
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

    files = ask(source, datasets.load_dataset_builder, *name_and_config(source)).config.data_files
    if files is None:
        raise InputError(f"{source}: the Hub cannot be asked which files it has; unset HF_HUB_OFFLINE, or pull it")
    if split not in files:
        raise InputError(f"{source}: no split '{split}' in it, found {', '.join(map(str, files))}")
    return [str(file) for file in files[split]]


def name_and_config(source: str) -> tuple[str, str | None]:
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


def declared_labels(
    source: str, files: list[Path] | None, named: str | None, usual: Sequence[str] = USUAL_LABEL_COLUMNS
) -> list[str] | None:
    """The names of labels in the order of their ids, if tables in Parquet, or a Hub data set, declare them."""
    import datasets

    if files is None:
        features = ask(source, datasets.load_dataset_builder, *name_and_config(source)).info.features or {}
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
