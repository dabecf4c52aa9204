"""Tables and data sets of the Hub: rows, their columns, and labels."""

import csv
import io
import json
import sys
import tarfile
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from natsort import natsort_keygen, ns

from toolkit.data.files import check_readable_text, read_text
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
    builder = builders.pop()
    if builder == "csv":
        return datasets.concatenate_datasets(list(map(_load_csv, files)))
    for file in files if builder == "json" else ():
        check_readable_text(file)
    load = partial(ask, source, datasets.load_dataset, builder, split="train")
    if builder == "parquet" and len(set(map(_declared, files))) > 1:
        return datasets.concatenate_datasets([_with_names(load(data_files=[str(file)])) for file in files])
    rows = load(data_files=[str(file) for file in files])
    return rows if builder == "parquet" else _with_dates_as_text(source, rows, files)


def _load_csv(file: Path):
    """A CSV or TSV as a `datasets.Dataset` of strings. Raises `InputError`, with the row, if it is malformed.

    In a TSV quotes are characters like any others, unless all of them follow the rules of CSV.
    """
    import datasets
    from pyarrow import ArrowInvalid

    is_tsv = suffix_of(file) == ".tsv"
    fault = _fault_of_quotes(file, "\t" if is_tsv else ",")
    if fault is not None and not is_tsv:
        raise InputError(f"{file}: {fault}")
    try:
        table = _read_csv(file, has_quotes=fault is None)
    except ArrowInvalid as error:
        raise InputError(f"{file}: cannot be read ({first_line(error)})") from None
    if len(set(table.column_names)) < table.num_columns:
        twice = next(name for name in table.column_names if table.column_names.count(name) > 1)
        raise InputError(f"{file}: has more than one column '{twice}'")
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _fault_of_quotes(file: Path, delimiter: str) -> str | None:
    """Where a quote does not follow the rules of CSV, so that rows would be lost; None if all do."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), delimiter=delimiter, strict=True)
    csv.field_size_limit(sys.maxsize)
    try:
        for _ in reader:
            pass
    except csv.Error as error:
        return f"line {reader.line_num}: a quote that is not closed, or not doubled within quotes ({error})"
    return None


def _read_csv(file: Path, has_quotes: bool):
    """All values as strings."""
    from pyarrow import csv as arrow
    from pyarrow import string

    delimiter, quote = "\t" if suffix_of(file) == ".tsv" else ",", '"' if has_quotes else False
    format = arrow.ParseOptions(delimiter=delimiter, quote_char=quote, newlines_in_values=has_quotes)
    with arrow.open_csv(str(file), parse_options=format) as opened:
        names = opened.schema.names
    as_text = arrow.ConvertOptions(column_types=dict.fromkeys(names, string()), strings_can_be_null=False)
    reading = arrow.ReadOptions(use_threads=False)  # so that errors have numbers of rows
    return arrow.read_csv(str(file), read_options=reading, parse_options=format, convert_options=as_text)


def _declared(file: Path) -> str:
    """The columns of a Parquet file, with the names of labels."""
    import datasets
    from pyarrow.parquet import read_schema

    return str(datasets.Features.from_arrow_schema(read_schema(file)))


def _with_names(rows):
    """The rows with names in place of the ids of labels, None for a negative id."""
    import datasets

    for column, feature in rows.features.items():
        of_item = getattr(feature, "feature", feature)
        if isinstance(of_item, datasets.ClassLabel):
            names: dict[Any, str | None] = {None: None, **dict(enumerate(of_item.names))}
            values = [
                list(map(names.get, value)) if isinstance(value, list) else names.get(value) for value in rows[column]
            ]
            rows = rows.remove_columns(column).add_column(column, values)
    return rows


def _with_dates_as_text(source: str, rows, files: list[Path]):
    """The rows of JSON files, in which Arrow takes strings for dates, with strings as they stand in the files."""
    columns = [name for name, feature in rows.features.items() if "timestamp" in str(feature)]
    records = [record for file in files for record in _read_json(file)] if columns else []
    for column in columns:
        if len(records) != len(rows):
            raise InputError(f"{source}: the column '{column}' holds dates, expected text")
        rows = rows.remove_columns(column).add_column(column, [record.get(column) for record in records])
    return rows


def _read_json(file: Path) -> list[dict[str, Any]]:
    text = read_text(file)
    try:
        whole = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return whole if isinstance(whole, list) else [whole]


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
    if names is not None and max(values) >= len(names):
        number = values.index(max(values)) + 1
        raise InputError(f"{source}: row {number} has the id {max(values)} in '{column}', which has no name")
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

        if len(set(map(_declared, files))) > 1:
            return None
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
