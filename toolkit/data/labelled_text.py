"""Labelled texts: one row per text, with its label."""

from collections.abc import Iterator

from toolkit.data import sources, table_files
from toolkit.data.files import read_text
from toolkit.data.splits import OTHER_FORMAT, SPLIT_NAMES, DataFiles


def open_labelled_text(source: str, text_column: str | None = None, label_column: str | None = None) -> sources.Source:
    """Open labelled texts: rows with the columns `text` and `label`, both strings.

    The source is a file, folder or glob of `.jsonl`, `.csv` or `.parquet`, with labels that are `ClassLabel`, strings
    or whole numbers; a folder with a folder of `.txt` files for each label; a Hub id; or `sample`, sentences of the
    sample treebank with their genre. Raises `InputError` if it is missing or malformed, or a text has no label.
    """
    import datasets

    kinds = set(table_files.TABLE_BUILDERS)
    if source == sources.SAMPLE:

        def load(split: str | None):
            return datasets.Dataset.from_list(list(_sample_genres(split or "train")))

        return sources.Source(source, DataFiles.named(*SPLIT_NAMES), load)
    if of_labels := sources.find_class_folders(source, {".txt"}):
        of_labels.leave_out(OTHER_FORMAT, *of_labels.metadata)

        def load_files(split: str | None):
            files = sources.files_of_split(source, of_labels, split)
            texts = [read_text(file).strip() for file in files]
            labels = [table_files.name_of_label(folders[-1], None) for folders in files.values()]
            return datasets.Dataset.from_dict({"text": texts, "label": labels})

        return sources.Source(source, of_labels, load_files)
    found = sources.find_splits(source, kinds)

    def load_tables(split: str | None):
        rows = table_files.load_table(source, sources.files_to_load(source, found, kinds, split), split)
        text = table_files.choose_column(
            source, rows.column_names, "text_column", text_column, table_files.USUAL_TEXT_COLUMNS
        )
        labels = table_files.labels_of_table(source, rows, label_column)
        return datasets.Dataset.from_dict({"text": table_files.full_column(source, rows, text), "label": labels})

    def declared_labels() -> list[str] | None:
        return table_files.declared_labels(source, sources.files_to_load(source, found, kinds, None), label_column)

    return sources.Source(source, found, load_tables, declared_labels)


def load_labelled_text(source: str, split: str | None = None, **columns: str | None):
    """Load a split of labelled texts, with the columns of `open_labelled_text`."""
    return open_labelled_text(source, **columns).load(split)


def _sample_genres(split: str) -> Iterator[dict[str, str]]:
    (file,) = sources.find_files(str(sources.SAMPLE_TREEBANK), {".conllu"}, split) or []
    values = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            name, _, value = line[2:].partition(" = ")
            values[name] = value
        elif not line:
            yield {"text": values["text"], "label": values["genre"]}
