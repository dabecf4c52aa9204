"""Labelled texts: one row per text, with its label."""

from collections.abc import Iterator

from toolkit.data import sources
from toolkit.data.splits import DataFiles


def load_labelled_text(
    source: str, split: str | None = None, text_column: str | None = None, label_column: str | None = None
):
    """Load labelled texts as a `datasets.Dataset` with the columns `text` and `label`, both strings.

    The source is a file, folder or glob of `.jsonl`, `.csv` or `.parquet`, with labels that are `ClassLabel`, strings
    or whole numbers; a folder with a folder of `.txt` files for each label; a Hub id; or `sample`, sentences of the
    sample treebank with their genre. Raises `InputError` if it is missing or malformed, or a text has no label.
    """
    import datasets

    if source == sources.SAMPLE:
        return datasets.Dataset.from_list(list(_sample_genres(split or "train")))
    if found := sources.find_class_folders(source, {".txt"}):
        files = sources.files_of_split(source, found, split)
        texts = [sources.read_text(file).strip() for file in files]
        labels = [folders[-1] for folders in files.values()]
    else:
        rows = sources.load_table(source, sources.find_files(source, set(sources.TABLE_BUILDERS), split), split)
        text = sources.choose_column(source, rows.column_names, "text_column", text_column, sources.USUAL_TEXT_COLUMNS)
        labels = sources.labels_of_table(source, rows, label_column)
        texts = sources.full_column(source, rows, text)
    return datasets.Dataset.from_dict({"text": texts, "label": labels})


def splits_of_labelled_text(source: str) -> DataFiles:
    """The splits of a source, with their files if it is a folder; none of a single file or a pattern."""
    found = None if source == sources.SAMPLE else sources.find_class_folders(source, {".txt"})
    return found or sources.find_splits(source, set(sources.TABLE_BUILDERS))


def _sample_genres(split: str) -> Iterator[dict[str, str]]:
    (file,) = sources.find_files(str(sources.SAMPLE_TREEBANK), {".conllu"}, split) or []
    values = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            name, _, value = line[2:].partition(" = ")
            values[name] = value
        elif not line:
            yield {"text": values["text"], "label": values["genre"]}
