"""Images of Parquet files or webdataset archives of any size, streamed by `datasets`: nothing is copied to disk."""

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from toolkit.data import sources, table_files
from toolkit.data.cache import cached_json, digest
from toolkit.data.files import READ_ERRORS, is_damage, stamp_of
from toolkit.data.image_files import IMAGES
from toolkit.data.splits import DataFiles
from toolkit.errors import InputError, RunFailed, first_line

BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
ROWS_A_BATCH = 16
USUAL_LABELS = (*table_files.USUAL_LABEL_COLUMNS, "cls", "label.txt", "cls.txt")  # the last three are webdataset's


class ImageStream:
    """Images of files of one format, in an order that depends on the seed and the epoch.

    Files are shuffled, and images among `buffer_size` that follow each other. The labels are found by reading all
    files once, when they are first asked for; images whose label is not among `only` are left out.
    """

    def __init__(
        self,
        files: Sequence[str],
        image_column: str | None = None,
        label_column: str | None = None,
        has_labels: bool = True,
        only: Sequence[str] | None = None,
        seed: int = 0,
        buffer_size: int = 1000,
    ):
        self.files, self.seed, self.buffer_size = list(files), seed, buffer_size
        self._rows = _open(self.files)
        features = self._rows.features
        if features is None:
            raise InputError(f"{files[0]}: there is no image in it")
        of_images = [name for name, feature in features.items() if _holds_images(feature)]
        if image_column is not None and image_column not in of_images:
            found = ", ".join(of_images) or "none"
            raise InputError(f"--image_column {image_column}: no column of images in {files[0]}, found {found}")
        if not of_images:
            raise InputError(f"{files[0]}: no column holds images, found {', '.join(features)}")
        self.image_column, self.label_column = image_column or of_images[0], None
        if has_labels:
            columns = list(features)
            self.label_column = table_files.choose_column(
                files[0], columns, "label_column", label_column, USUAL_LABELS
            )
            if self.label_column in of_images:
                raise InputError(f"{files[0]}: the column '{self.label_column}' holds images, not labels")
        self._names = getattr(features.get(self.label_column), "names", None)
        self._only = None if only is None else set(only)
        self._epoch, self._position = -1, 0
        self._reader: Iterator[dict[str, Any]] = iter(())

    def __len__(self) -> int:
        return self.labels.total()

    def read(self, positions: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Read rows with `image`, `name` and `label`, given the epoch and the position of each (fastest in order)."""
        return [self._row_at(epoch, position) for epoch, position in positions]

    def first(self, size: int):
        """At most `size` images of the first files, in their order, as a `datasets.Dataset`."""
        rows = list(islice(self._labelled_rows(_open(self.files)), size))
        columns = {"label": [row["label"] for row in rows]} if self.label_column else {}
        return IMAGES.dataset([row["image"] for row in rows], [row["name"] for row in rows], **columns)

    def _row_at(self, epoch: int, position: int) -> dict[str, Any]:
        """The row at a position; to go back, the epoch is read from its beginning."""
        if epoch != self._epoch or position < self._position:
            rows = self._rows.shuffle(seed=self.seed, buffer_size=self.buffer_size)
            rows.set_epoch(epoch)
            self._reader, self._epoch, self._position = self._labelled_rows(rows), epoch, 0
        row = next(islice(self._reader, position - self._position, None), None)
        if row is None:
            raise InputError(f"{self.files[0]}: there are fewer images than before; have the files changed?")
        self._position = position + 1
        return row

    def _labelled_rows(self, rows) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(_iterate(rows, self.files)):
            label = None if self.label_column is None else self._label(row)
            if self._only is None or label in self._only:
                image = row[self.image_column]
                name = row.get("__key__") or (image or {}).get("path") or f"image {number + 1} of {self.files[0]} …"
                yield {"image": image or {"bytes": b"", "path": None}, "name": name, "label": label}

    def _label(self, row: dict[str, Any]) -> str:
        assert self.label_column is not None
        value = row[self.label_column]
        if value is None or (self._names and value < 0):  # `datasets` writes a missing label as -1
            raise InputError(f"{row.get('__url__') or self.files[0] + ' …'}: an image has no {self.label_column}")
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        return table_files.name_of_label(value, self._names)

    @property
    def declared_labels(self) -> list[str] | None:
        """The names of labels in the order of their ids, if the files declare them."""
        return self._names and [name for name in self._names if self._only is None or name in self._only]

    @cached_property
    def labels(self) -> Counter[str]:
        """The number of images of each label, or of all under "" if there are no labels; cached while files stay."""

        def count() -> Counter[str]:
            rows = _iterate(_open(self.files, [self.label_column or self.image_column]), self.files)
            if self.label_column is None:
                return Counter({"": sum(1 for _ in rows)})
            labels = map(self._label, rows)
            return Counter(label for label in labels if self._only is None or label in self._only)

        stamps = [stamp_of(file) for file in self.files]
        name = digest("images", stamps, self.label_column, sorted(self._only or ()))
        return Counter(cached_json("images", name, count))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_rows": None, "_epoch": -1}

    def __setstate__(self, state: dict[str, Any]) -> None:  # each process opens the files itself
        self.__dict__.update(state, _rows=_open(state["files"]))


def files_of_stream(source: str, split: str | None) -> list[str]:
    """The files of a folder, file or glob of `.parquet` or `.tar`, or of a Hub id. Raises `InputError`."""
    found = sources.find_files(source, set(BUILDERS), split)
    files = table_files.files_of_hub(source, split or "train") if found is None else [str(file) for file in found]
    suffixes = {sources.suffix_of(Path(file)) for file in files}
    if len(suffixes) > 1 or not suffixes <= set(BUILDERS):
        raise InputError(f"{source}: holds {', '.join(sorted(suffixes))}, expected one of {' or '.join(BUILDERS)}")
    return files


def splits_of_stream(source: str) -> DataFiles:
    """The splits of a source, with their files if they are on this machine; none of a single file."""
    return sources.find_splits(source, set(BUILDERS))


def _open(files: Sequence[str], columns: list[str] | None = None):
    """Open files as a stream of rows, without decoding images; of Parquet files only some columns are read."""
    import datasets

    builder = BUILDERS[sources.suffix_of(Path(files[0]))]
    options: dict[str, Any] = {"data_files": list(files), "split": "train", "streaming": True}
    if columns and builder == "parquet":
        options["columns"] = columns
    rows = table_files.ask(files[0], datasets.load_dataset, builder, **options)
    return rows.decode(False) if rows.features else rows


_ERRORS = (*READ_ERRORS, tarfile.TarError)


def _iterate(rows, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Iterate over all rows; in a process of a DataLoader, iterating over `rows` itself would give only its share."""
    try:
        for batch in rows.iter(batch_size=ROWS_A_BATCH):
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))
    except _ERRORS as error:
        if isinstance(error, OSError) and not is_damage(error):
            raise RunFailed(f"{files[0]} …: cannot be read now ({first_line(error)}); repeat the command") from None
        raise InputError(f"{_find_damaged_file(files)}: cannot be read ({first_line(error)})") from None


def _find_damaged_file(files: Sequence[str]) -> str:
    """The first file that cannot be read to its end, found by reading each again."""
    for file in files:
        try:
            for _ in _open([file]).iter(batch_size=ROWS_A_BATCH):
                pass
        except _ERRORS:
            return file
    return f"one of {files[0]} …"


def _holds_images(feature: Any) -> bool:
    import datasets

    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature)
