"""Images or recordings: one row per file, with a name for messages and perhaps a label, decoded when needed."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from toolkit.data import sources, table_files
from toolkit.data.splits import METADATA_FILES, DataFiles, find_all, find_data
from toolkit.data.summary import DataSummary
from toolkit.errors import InputError

NOT_IN_METADATA, BROKEN = "not in the metadata", "cannot be opened"


def as_file(item: Any) -> dict[str, Any]:
    """An item as `bytes` or the `path` of a file."""
    return {"bytes": None, "path": str(item)} if isinstance(item, str | Path) else item


@dataclass(frozen=True)
class MediaFiles:
    """How files of one kind are found.

    Attributes:
        name: Name of the column that holds them, `image` or `audio`; each is `bytes` or the `path` of a file.
        noun: What one of them is called.
        suffixes: Of the formats that can be read.
        usual_columns: Usual names of the column of a table that holds them, or their paths.
        feature: Name of the feature of `datasets` that holds them.
        check: Opens one of them, called with the item and its name; raises `InputError` if it cannot be opened.
        sample_splits: The names of the splits of `sample`.
        load_sample: Loads a split of `sample`, with the further columns of labels that are named, such as `label`.
    """

    name: str
    noun: str
    suffixes: frozenset[str]
    usual_columns: tuple[str, ...]
    feature: str
    check: Callable[[dict[str, Any], str], Any]
    sample_splits: tuple[str, ...]
    load_sample: Callable[..., Any]

    def open_labelled(
        self,
        source: str,
        column: str | None = None,
        label_column: str | None = None,
        labels: Sequence[str] | None = None,
        group_column: str | None = None,
    ) -> sources.Source:
        """Open labelled files: rows with the item (`bytes` or the `path` of a file, not opened yet), `name` and
        `label`.

        The source is a folder with a folder of files for each label, or of files and `metadata.csv` (or `.jsonl` or
        `.parquet`) with the columns `file_name` and `label`; a file, folder or glob of `.parquet`, `.csv` or `.jsonl`
        with the items, or paths of files relative to the table; a Hub id; or `sample`. With `labels`, only items with
        these labels are loaded; the values of `group_column` become `group`.
        Raises `InputError` if the source is missing or malformed.
        """
        named = {"label": label_column} | ({} if group_column is None else {"group": group_column})
        if source == sources.SAMPLE:
            opened = self._open_sample(**named)
        elif (found := self._find_folder(source)) is None:
            opened = self._open_table(source, column, **named)
        elif found.metadata:
            opened = sources.Source(source, found, partial(self._load_with_metadata, source, found, **named))
        elif group_column is not None:
            raise InputError(
                f"{source}: folders of labels have no column {group_column}; name a table, or metadata.csv"
            )
        else:

            def load(split: str | None):
                files = sources.files_of_split(source, found, split)
                return self._rows_of_files(
                    list(files), label=[table_files.name_of_label(folders[-1], None) for folders in files.values()]
                )

            opened = sources.Source(source, found, load)
        return opened if labels is None else select_labels(opened, labels)

    def load_labelled(self, source: str, split: str | None = None, **options: Any):
        """Load a split of labelled files, with the options of `open_labelled`."""
        return self.open_labelled(source, **options).load(split)

    def open_unlabelled(self, source: str, column: str | None = None) -> sources.Source:
        """Open files without labels: the sources of `open_labelled`, or a folder that contains files."""
        if source == sources.SAMPLE:
            return self._open_sample()
        if (found := self._find_folder(source, has_labels=False)) is None:
            return self._open_table(source, column)

        def load(split: str | None):
            return self._rows_of_files(list(sources.files_of_split(source, found, split)))

        return sources.Source(source, found, load)

    def load_inputs(self, inputs: Sequence[str | Path]):
        """Load items without labels from files, folders and tables, to predict their labels.

        Prints what is left out of a folder on stderr.
        """
        import datasets

        parts = []
        for path in map(Path, inputs):
            if path.is_dir():
                found = DataFiles()
                parts.append(self._rows_of_files(find_all(path, set(self.suffixes), found)))
                if found.left_out:
                    DataSummary(str(path), found).say()
            elif path.is_file() and sources.suffix_of(path) not in table_files.TABLE_BUILDERS:
                parts.append(self._rows_of_files([path]))
            else:
                parts.append(self._open_table(str(path), None).load(None))
        if not parts:
            raise InputError(f"there is no {self.noun} to classify")
        return datasets.concatenate_datasets(parts)

    def without_broken(self, rows, found: DataFiles | None = None, say: Callable[[str], None] | None = None):
        """The rows whose items can be opened; the others are added to what `found` leaves out.

        `say`, by default printing to stderr, is called with the reason of each.
        """
        say = say or partial(print, file=sys.stderr)
        kept = []
        for index, row in enumerate(rows):
            try:
                self.check(row[self.name], row["name"])
                kept.append(index)
            except InputError as error:
                say(f"left out: {error}")
                if found is not None:
                    found.leave_out(BROKEN, Path(row["name"]))
        return rows.select(kept)

    def dataset(self, items: list[dict], names: list[str], **columns: Sequence[str]):
        """A `datasets.Dataset` with the items, `name` and columns of strings such as `label`."""
        import datasets

        strings = {"name": names, **columns}
        features = {self.name: {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
        features |= dict.fromkeys(strings, datasets.Value("string"))
        return datasets.Dataset.from_dict({self.name: items, **strings}, features=datasets.Features(features))

    def _rows_of_files(self, files: Sequence[Path], **columns: Sequence[str]):
        return self.dataset(list(map(as_file, files)), list(map(str, files)), **columns)

    def _open_sample(self, **named: str | None) -> sources.Source:
        found = DataFiles.named(*self.sample_splits)
        return sources.Source(sources.SAMPLE, found, lambda split: self.load_sample(split or "train", **named))

    def _find_folder(self, source: str, has_labels: bool = True) -> DataFiles | None:
        """What is in a folder of files; None if the source is something else, or a folder of tables.

        Beside two folders of files or more, such as those of labels, a `.json` is no table.

        Raises `InputError` if there is another table beside them, if files have no label and should have one, or if a
        label has no file.
        """
        root = Path(source).expanduser()
        if not root.is_dir():
            return None
        tables = sorted(filter(_is_table, sources.visible_files(root)))
        if tables and not self._has_folders_of_files(root):
            return None
        if table := next((table for table in tables if sources.suffix_of(table) != ".json"), None):
            raise InputError(
                f"{table}: a table beside folders of {self.noun}s; name the table itself, or move it away"
            )
        found = sources.find_folder(source, set(self.suffixes))
        if not has_labels or found.metadata:
            return found
        example = next(file for files in found.splits.values() for file in files)
        if (of_labels := sources.in_label_folders(source, found)) is None:
            raise InputError(
                f"{example}: this {self.noun} has no label; put {self.noun}s into a folder for each label, or name "
                "the labels in a metadata.csv with the columns file_name and label"
            )
        with_files = {file.parent for files in of_labels.splits.values() for file in files}
        no_data = {path for paths in of_labels.left_out.values() for path in paths}
        for folder in sorted(
            path for path in root.rglob("*") if path.is_dir() and no_data.isdisjoint([path, *path.parents])
        ):
            is_leaf = not any(path.is_dir() for path in folder.iterdir())
            if is_leaf and folder not in with_files and not folder.name.startswith("_"):
                raise InputError(f"{folder}: no {self.noun} in this folder of a label; put some there or remove it")
        return of_labels

    def _has_folders_of_files(self, root: Path) -> bool:
        """Whether files are in two folders or more beside each other, in the folder itself or in that of a split."""
        try:
            found = find_data(root, set(self.suffixes))
        except InputError:  # about splits of files, which a table may name as it likes
            return False
        return len({folders[0] for files in found.splits.values() for folders in files.values() if folders}) > 1

    def _load_with_metadata(self, source: str, found: DataFiles, split: str | None, **named: str | None):
        """The files of a split that are in the nearest metadata file above them; the others are left out."""
        described = {file.parent: self._read_metadata(file, **named) for file in found.metadata}
        rows: list[dict[str, str]] = []
        files = []
        for file in sources.files_of_split(source, found, split):
            folder = next((folder for folder in file.parents if folder in described), None)
            of_folder = {} if folder is None else described[folder]
            if folder is not None and (name := file.relative_to(folder).as_posix()) in of_folder:
                files.append(file)
                rows.append(of_folder[name])
            else:
                found.leave_out(NOT_IN_METADATA, file)
        if not files:
            metadata = found.metadata[0].name
            raise InputError(f"{source}: no {self.noun} of the split {split or 'train'} is in {metadata}")
        return self._rows_of_files(files, **{name: [row[name] for row in rows] for name in named})

    def _read_metadata(self, file: Path, **named: str | None) -> dict[str, dict[str, str]]:
        """The columns of labels of a metadata file, by `file_name`. Raises `InputError` if it names a file twice or
        one that is not there."""
        rows = table_files.load_table(str(file), [file], None)
        column = table_files.choose_column(str(file), rows.column_names, self._flag, None, ("file_name",))
        names = [Path(name).as_posix() for name in table_files.full_column(str(file), rows, column)]
        for number, name in enumerate(names, start=1):
            if not (file.parent / name).exists():
                raise InputError(f"{file}: row {number} names {name}, and there is no such file in {file.parent}")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{file}: names {twice} more than once")
        columns = {
            name: table_files.labels_of_table(str(file), rows, each, f"{name}_column") for name, each in named.items()
        }
        return {name: {of: values[i] for of, values in columns.items()} for i, name in enumerate(names)}

    def _open_table(self, source: str, column: str | None, **named: str | None) -> sources.Source:
        """The items of tables; `named` are further columns of labels such as `label`, and what the user calls them."""
        kinds = set(table_files.TABLE_BUILDERS)
        found = sources.find_splits(source, kinds)

        def load(split: str | None):
            import datasets

            files = sources.files_to_load(source, found, kinds, split)
            if files is None:
                rows = table_files.load_table(source, None, split)
                return self.items_of_table(source, rows, Path(), column, **named)
            parts = []
            for folder, of_folder in groupby(files, key=lambda file: file.parent):
                rows = table_files.load_table(source, list(of_folder), split)
                parts.append(self.items_of_table(source, rows, folder, column, **named))
            return datasets.concatenate_datasets(parts)

        def declared_labels() -> list[str] | None:
            files = sources.files_to_load(source, found, kinds, None)
            return table_files.declared_labels(source, files, named.get("label"))

        return sources.Source(source, found, load, declared_labels)

    def items_of_table(self, source: str, rows, folder: Path, column: str | None, **named: str | None):
        """The items of the rows of tables in a folder, to which paths are relative."""
        import datasets

        feature_class = getattr(datasets, self.feature)
        columns = {
            name: table_files.labels_of_table(source, rows, each, f"{name}_column") for name, each in named.items()
        }
        of_kind = (name for name, feature in rows.features.items() if isinstance(feature, feature_class))
        column = column or next(of_kind, None)
        column = table_files.choose_column(source, rows.column_names, self._flag, column, self.usual_columns)
        feature = rows.features[column]
        if isinstance(feature, feature_class):
            rows = rows.cast_column(column, feature_class(decode=False))
            items = table_files.full_column(source, rows, column)
        elif getattr(feature, "dtype", None) in ("string", "large_string"):
            items = [as_file(folder / path) for path in table_files.full_column(source, rows, column)]
        else:
            raise InputError(
                f"{source}: the column '{column}' holds {feature}, expected {self.noun}s or paths of {self.noun}s"
            )
        numbered = enumerate(items, start=1)
        names = [item["path"] if item["bytes"] is None else f"{source}: row {number}" for number, item in numbered]
        return self.dataset(items, names, **columns)

    @property
    def _flag(self) -> str:
        return f"{self.name}_column"


def _is_table(file: Path) -> bool:
    return sources.suffix_of(file) in table_files.TABLE_BUILDERS and file.name.lower() not in METADATA_FILES


def select_labels(source: sources.Source, labels: Sequence[str]) -> sources.Source:
    """The source with the rows of these labels only; loading raises `InputError` if no row has one of them."""

    def select(rows):
        found = rows["label"][:]
        if missing := sorted(set(labels) - set(found)):
            there_are = ", ".join(sorted(set(found))[:20])
            raise InputError(f"--labels {' '.join(missing)}: not in {source.name}, where there are {there_are}")
        return rows.select([index for index, label in enumerate(found) if label in labels])

    def declared_labels() -> list[str] | None:
        declared = source.declared_labels()
        return None if declared is None else [label for label in declared if label in labels]

    return sources.Source(source.name, source.found, lambda split: select(source.load(split)), declared_labels)
