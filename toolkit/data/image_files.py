"""Images: one row per image with a name for messages and perhaps a label; pixels are decoded when they are needed."""

import random
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from toolkit.data import sources, table_files
from toolkit.data.image_decoding import as_stored, open_image
from toolkit.data.splits import METADATA_FILES, DataFiles, find_all, find_data
from toolkit.data.summary import DataSummary
from toolkit.errors import InputError, extra

NOT_IN_METADATA, BROKEN = "not in the metadata", "cannot be opened"
# Of all formats of pixels that Pillow can decode by itself.
SUFFIXES = {
    *(".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit", ".fits", ".flc"),
    *(".fli", ".ftc", ".ftu", ".gbr", ".gif", ".icb", ".icns", ".ico", ".iim", ".im", ".j2c", ".j2k", ".jfif"),
    *(".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif"),
    *(".tiff", ".vda", ".vst", ".webp", ".xbm", ".xpm"),
}
USUAL_COLUMNS = ("image", "img", "file_name", "file", "filename", "path")
_SAMPLE_SPLITS = {"train": (0, 1_257), "validation": (1_257, 1_437), "test": (1_437, 1_797)}


def open_labelled_images(
    source: str,
    image_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    group_column: str | None = None,
) -> sources.Source:
    """Open labelled images: rows with `image` (`bytes` or the `path` of a file, not opened yet), `name` and `label`.

    The source is a folder with a folder of images for each label, or of images and `metadata.csv` (or `.jsonl` or
    `.parquet`) with the columns `file_name` and `label`; a file, folder or glob of `.parquet`, `.csv` or `.jsonl` with
    images, or paths of images relative to the table; a Hub id; or `sample`, scikit-learn's handwritten digits. With
    `labels`, only images with these labels are loaded; the values of `group_column` become `group`.
    Raises `InputError` if the source is missing or malformed.
    """
    named = {"label": label_column} | ({} if group_column is None else {"group": group_column})
    if source == sources.SAMPLE:
        opened = _open_sample()
    elif (found := _find_folder(source)) is None:
        opened = _open_table(source, image_column, **named)
    elif found.metadata:
        opened = sources.Source(source, found, partial(_images_with_metadata, source, found, **named))
    else:

        def load(split: str | None):
            files = sources.files_of_split(source, found, split)
            return _images_of_files(
                list(files), label=[table_files.name_of_label(folders[-1], None) for folders in files.values()]
            )

        opened = sources.Source(source, found, load)
    return opened if labels is None else select_labels(opened, labels)


def load_labelled_images(source: str, split: str | None = None, **options: Any):
    """Load a split of labelled images, with the options of `open_labelled_images`."""
    return open_labelled_images(source, **options).load(split)


def open_unlabelled_images(source: str, image_column: str | None = None) -> sources.Source:
    """Open images without labels: the sources of `open_labelled_images`, or a folder that contains images."""
    if source == sources.SAMPLE:
        return _open_sample().with_rows(lambda rows: rows.remove_columns("label"))
    if (found := _find_folder(source, has_labels=False)) is None:
        return _open_table(source, image_column)

    def load(split: str | None):
        return _images_of_files(list(sources.files_of_split(source, found, split)))

    return sources.Source(source, found, load)


def load_images(inputs: Sequence[str | Path]):
    """Load images without labels from files, folders and tables, to predict their labels.

    Prints what is left out of a folder on stderr.
    """
    import datasets

    parts = []
    for path in map(Path, inputs):
        if path.is_dir():
            found = DataFiles()
            parts.append(_images_of_files(find_all(path, SUFFIXES, found)))
            if found.left_out:
                DataSummary(str(path), found).say()
        elif path.is_file() and sources.suffix_of(path) not in table_files.TABLE_BUILDERS:
            parts.append(_images_of_files([path]))
        else:
            parts.append(_open_table(str(path), None).load(None))
    if not parts:
        raise InputError("there is no image to classify")
    return datasets.concatenate_datasets(parts)


def without_broken(rows, found: DataFiles | None = None, say: Callable[[str], None] | None = None):
    """The rows whose images can be opened; the others are added to what `found` leaves out.

    `say`, by default printing to stderr, is called with the reason of each.
    """
    say = say or partial(print, file=sys.stderr)
    kept = []
    for index, row in enumerate(rows):
        try:
            open_image(row["image"], row["name"])
            kept.append(index)
        except InputError as error:
            say(f"left out: {error}")
            if found is not None:
                found.leave_out(BROKEN, Path(row["name"]))
    return rows.select(kept)


def _find_folder(source: str, has_labels: bool = True) -> DataFiles | None:
    """What is in a folder of images; None if the source is something else, or a folder of tables.

    Beside two folders of images or more, such as those of labels, a `.json` is no table.

    Raises `InputError` if there is another table beside them, if images have no label and should have one, or if a
    label has no image.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        return None
    tables = sorted(filter(_is_table, sources.visible_files(root)))
    if tables and not _has_folders_of_images(root):
        return None
    if table := next((table for table in tables if sources.suffix_of(table) != ".json"), None):
        raise InputError(f"{table}: a table beside folders of images; name the table itself, or move it away")
    found = sources.find_folder(source, SUFFIXES)
    if not has_labels or found.metadata:
        return found
    example = next(file for files in found.splits.values() for file in files)
    if (of_labels := sources.in_label_folders(source, found)) is None:
        raise InputError(
            f"{example}: this image has no label; put images into a folder for each label, or name the labels in "
            "a metadata.csv with the columns file_name and label"
        )
    with_images = {file.parent for files in of_labels.splits.values() for file in files}
    no_data = {path for paths in of_labels.left_out.values() for path in paths}
    for folder in sorted(
        path for path in root.rglob("*") if path.is_dir() and no_data.isdisjoint([path, *path.parents])
    ):
        is_leaf = not any(path.is_dir() for path in folder.iterdir())
        if is_leaf and folder not in with_images and not folder.name.startswith("_"):
            raise InputError(f"{folder}: no image in this folder of a label; put some there or remove it")
    return of_labels


def _is_table(file: Path) -> bool:
    return sources.suffix_of(file) in table_files.TABLE_BUILDERS and file.name.lower() not in METADATA_FILES


def _has_folders_of_images(root: Path) -> bool:
    """Whether images are in two folders or more beside each other, in the folder itself or in that of a split."""
    try:
        found = find_data(root, SUFFIXES)
    except InputError:  # about splits of images, which a table may name as it likes
        return False
    return len({folders[0] for files in found.splits.values() for folders in files.values() if folders}) > 1


def _images_with_metadata(source: str, found: DataFiles, split: str | None, **named: str | None):
    """The images of a split that are in the nearest metadata file above them; the others are left out."""
    described = {file.parent: _read_metadata(file, **named) for file in found.metadata}
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
        raise InputError(f"{source}: no image of the split {split or 'train'} is in {found.metadata[0].name}")
    return _images_of_files(files, **{name: [row[name] for row in rows] for name in named})


def _read_metadata(file: Path, **named: str | None) -> dict[str, dict[str, str]]:
    """The columns of labels of a metadata file, by `file_name`. Raises `InputError` if it names a file twice or one
    that is not there."""
    rows = table_files.load_table(str(file), [file], None)
    column = table_files.choose_column(str(file), rows.column_names, "image_column", None, ("file_name",))
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


def _images_of_files(files: Sequence[Path], **columns: Sequence[str]):
    return dataset_of_images(list(map(as_stored, files)), list(map(str, files)), **columns)


def _open_table(source: str, image_column: str | None, **named: str | None) -> sources.Source:
    """The images of tables; `named` are further columns of labels, such as `label`, and what the user calls them."""
    kinds = set(table_files.TABLE_BUILDERS)
    found = sources.find_splits(source, kinds)

    def load(split: str | None):
        import datasets

        files = sources.files_to_load(source, found, kinds, split)
        if files is None:
            return _images_of_rows(source, table_files.load_table(source, None, split), Path(), image_column, **named)
        parts = []
        for folder, of_folder in groupby(files, key=lambda file: file.parent):
            rows = table_files.load_table(source, list(of_folder), split)
            parts.append(_images_of_rows(source, rows, folder, image_column, **named))
        return datasets.concatenate_datasets(parts)

    def declared_labels() -> list[str] | None:
        files = sources.files_to_load(source, found, kinds, None)
        return table_files.declared_labels(source, files, named.get("label"))

    return sources.Source(source, found, load, declared_labels)


def _images_of_rows(source: str, rows, folder: Path, image_column: str | None, **named: str | None):
    """The images of the rows of tables in a folder, to which paths are relative."""
    import datasets

    columns = {name: table_files.labels_of_table(source, rows, each, f"{name}_column") for name, each in named.items()}
    of_images = (name for name, feature in rows.features.items() if isinstance(feature, datasets.Image))
    image_column = image_column or next(of_images, None)
    column = table_files.choose_column(source, rows.column_names, "image_column", image_column, USUAL_COLUMNS)
    feature = rows.features[column]
    if isinstance(feature, datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
        images = table_files.full_column(source, rows, column)
    elif getattr(feature, "dtype", None) in ("string", "large_string"):
        images = [as_stored(folder / path) for path in table_files.full_column(source, rows, column)]
    else:
        raise InputError(f"{source}: the column '{column}' holds {feature}, expected images or paths of images")
    numbered = enumerate(images, start=1)
    names = [image["path"] if image["bytes"] is None else f"{source}: row {number}" for number, image in numbered]
    return dataset_of_images(images, names, **columns)


def dataset_of_images(images: list[dict], names: list[str], **columns: Sequence[str]):
    """A `datasets.Dataset` with `image`, `name` and columns of strings such as `label`."""
    import datasets

    strings = {"name": names, **columns}
    features = {"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
    features |= dict.fromkeys(strings, datasets.Value("string"))
    return datasets.Dataset.from_dict({"image": images, **strings}, features=datasets.Features(features))


def _open_sample() -> sources.Source:
    found = DataFiles.named(*_SAMPLE_SPLITS)
    return sources.Source(sources.SAMPLE, found, lambda split: _sample_digits(split or "train"))


@lru_cache
def _sample_digits(split: str):
    """Images of 8×8 pixels; the splits are parts of a fixed shuffle."""
    import numpy as np

    with extra("images"):
        from sklearn.datasets import load_digits

    if split not in _SAMPLE_SPLITS:
        raise InputError(f"sample: no split '{split}' of the digits, expected {', '.join(_SAMPLE_SPLITS)}")
    digits = load_digits()
    order = list(range(len(digits.target)))
    random.Random(0).shuffle(order)
    order = order[slice(*_SAMPLE_SPLITS[split])]
    images = [as_stored((digits.images[index] / 16 * 255).round().astype(np.uint8)) for index in order]
    names = [f"digit {index}" for index in order]
    return dataset_of_images(images, names, label=[str(digits.target[index]) for index in order])
