"""Images: one row per image with a name for messages and perhaps a label; pixels are decoded when they are needed."""

import io
import random
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from toolkit.data import sources
from toolkit.errors import InputError, extra, first_line

SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
USUAL_COLUMNS = ("image", "img", "file_name", "file", "filename", "path")
_SAMPLE_SPLITS = {"train": (0, 1_257), "validation": (1_257, 1_437), "test": (1_437, 1_797)}


def load_labelled_images(
    source: str,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    group_column: str | None = None,
):
    """Load labelled images as rows with `image` (`bytes` or the `path` of a file, not opened yet), `name` and `label`.

    The source is a folder with a folder of images for each label; a file, folder or glob of `.parquet`, `.csv` or
    `.jsonl` with images, or paths of images relative to the table; a Hub id; or `sample`, scikit-learn's handwritten
    digits. With `labels`, only images with these labels are loaded; the values of `group_column` become `group`.
    Raises `InputError` if the source is missing or malformed.
    """
    if source == sources.SAMPLE:
        rows = _sample_digits(split or "train")
    elif folders := _class_folders(source):
        files, of_files = sources.class_files_of_split(source, folders, split)
        rows = _images_of_files(files, label=of_files)
    else:
        named = {"label": label_column} | ({} if group_column is None else {"group": group_column})
        rows = _images_of_table(source, split, image_column, **named)
    return rows if labels is None else select_labels(source, rows, labels)


def load_corpus_of_images(source: str, split: str | None = None, image_column: str | None = None):
    """Load images without labels, from the sources of `load_labelled_images` or a folder that contains images."""
    if source == sources.SAMPLE or _class_folders(source):
        return load_labelled_images(source, split).remove_columns("label")
    root = Path(source).expanduser()
    if root.is_dir() and any(sources.suffix_of(file) in SUFFIXES for file in root.iterdir()):
        return load_images([root])
    return _images_of_table(source, split, image_column)


def splits_of_labelled_images(source: str) -> list[str]:
    """The splits of a folder or Hub data set; none of a single file or a pattern."""
    return sources.splits_of(source, set(sources.TABLE_BUILDERS), _class_folders(source))


def load_images(inputs: Sequence[str | Path]):
    """Load images without labels from files, folders and tables, to predict their labels."""
    import datasets

    parts = []
    for path in map(Path, inputs):
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and sources.suffix_of(p) in SUFFIXES)
            if not files:
                expected = ", ".join(sorted(SUFFIXES))
                raise InputError(f"{path}: no image in this folder, expected files that end in {expected}")
            parts.append(_images_of_files(files))
        elif path.is_file() and sources.suffix_of(path) not in sources.TABLE_BUILDERS:
            parts.append(_images_of_files([path]))
        else:
            parts.append(_images_of_table(str(path), None, None))
    if not parts:
        raise InputError("there is no image to classify")
    return datasets.concatenate_datasets(parts)


def without_broken(rows, say: Callable[[str], None] | None = None):
    """The rows whose images can be opened. `say`, by default printing to stderr, is called with what was left out."""
    say = say or partial(print, file=sys.stderr)
    kept = []
    for index, row in enumerate(rows):
        try:
            open_image(row["image"], row["name"])
            kept.append(index)
        except InputError as error:
            say(f"left out: {error}")
    return rows.select(kept)


def as_stored(image: Any) -> dict[str, Any]:
    """An image as `bytes` or the `path` of a file, from either of them, a `PIL.Image.Image`, or a uint8 array (height,
    width) or (height, width, 3)."""
    import numpy as np
    from PIL import Image

    if isinstance(image, dict):
        return image
    if isinstance(image, str | Path):
        return {"bytes": None, "path": str(image)}
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def open_image(image: dict[str, Any], name: str):
    """Decode an image to a `PIL.Image.Image` of mode RGB, rotated as its EXIF data says; 16 bits become 8.

    Raises `InputError`, which calls it `name`, if it is empty, broken or too large, or not an image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        file = Path(image["path"]) if image["bytes"] is None else io.BytesIO(image["bytes"])
        if (file.stat().st_size if isinstance(file, Path) else len(image["bytes"])) == 0:
            raise InputError(f"{name}: the file is empty, expected an image")
        with Image.open(file) as opened:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and opened.width * opened.height > limit:
                raise InputError(
                    f"{name}: {opened.width:,} × {opened.height:,} pixels, more than the {limit:,} that are opened; "
                    "make it smaller"
                )
            return _as_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        raise InputError(f"{name}: this is no image, or of a format that Pillow does not know") from None
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: too large an image ({first_line(error)})") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise InputError(f"{name}: this image cannot be decoded ({first_line(error)})") from None


def _as_rgb(image):
    import numpy as np
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # more than 8 bits of grey
        values = np.asarray(image).astype(np.float64)
        if image.mode == "F":
            white = 1.0 if values.max() <= 1 else 255.0
        else:
            white = 65_535.0 if image.mode != "I" or values.max() > 255 else 255.0
        image = Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))
    return image.convert("RGB")


def _class_folders(source: str) -> dict[str, list[tuple[Path, str]]]:
    """Like `find_class_folders`; none if the folder holds tables. Raises `InputError` if a label has no image."""
    root = Path(source).expanduser()
    if not root.is_dir() or any(sources.suffix_of(file) in sources.TABLE_BUILDERS for file in root.iterdir()):
        return {}
    found = sources.find_class_folders(source, SUFFIXES)
    with_images = {file.parent for files in found.values() for file, _ in files}
    for folder in sorted(path for path in root.rglob("*") if found and path.is_dir()):
        is_leaf = not any(path.is_dir() for path in folder.iterdir())
        if is_leaf and folder not in with_images and not folder.name.startswith((".", "_")):
            raise InputError(f"{folder}: no image in this folder of a label; put some there or remove it")
    return found


def select_labels(source: str, rows, labels: Sequence[str]):
    """The rows with one of these labels. Raises `InputError` if no row has one of them."""
    found = rows["label"][:]
    if missing := sorted(set(labels) - set(found)):
        there_are = ", ".join(sorted(set(found))[:20])
        raise InputError(f"--labels {' '.join(missing)}: not in {source}, where there are {there_are}")
    return rows.select([index for index, label in enumerate(found) if label in labels])


def _images_of_files(files: Sequence[Path], **columns: Sequence[str]):
    return dataset_of_images(list(map(as_stored, files)), list(map(str, files)), **columns)


def _images_of_table(source: str, split: str | None, image_column: str | None, **named: str | None):
    """The images of a table; `named` are further columns of labels, such as `label`, and what the user calls them."""
    import datasets

    files = sources.find_files(source, set(sources.TABLE_BUILDERS), split)
    rows = sources.load_table(source, files, split)
    columns = {name: sources.labels_of_table(source, rows, each, f"{name}_column") for name, each in named.items()}
    of_images = (name for name, feature in rows.features.items() if isinstance(feature, datasets.Image))
    image_column = image_column or next(of_images, None)
    column = sources.choose_column(source, rows.column_names, "image_column", image_column, USUAL_COLUMNS)
    feature = rows.features[column]
    if isinstance(feature, datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
        images = sources.full_column(source, rows, column)
    elif getattr(feature, "dtype", None) in ("string", "large_string"):
        root = files[0].parent if files else Path()
        images = [as_stored(root / path) for path in sources.full_column(source, rows, column)]
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
