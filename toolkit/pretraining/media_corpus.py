"""Images or recordings to pretrain on: the training split, and held-out ones of another split or of the same."""

from typing import Any

from toolkit.data.media_files import MediaFiles
from toolkit.data.rows import content_of_rows, hold_out
from toolkit.data.sources import Source
from toolkit.data.splits import DataFiles
from toolkit.pretraining.run import Run


def load_corpus(run: Run, source: Source, flags: Any, files: MediaFiles) -> tuple[Any, Any]:
    """Load rows to train on and held-out rows, and say what they hold.

    `flags` are the group that has `split` and `validation_fraction`. Raises `InputError` if the source is malformed,
    or has too few rows.
    """
    train_rows, held_out_of = load_split(run, source, flags.split, files), None
    if "validation" in source.splits:
        rows = train_rows, load_split(run, source, "validation", files)
    else:
        rows, held_out_of = hold_out(train_rows.shuffle(seed=0), flags.validation_fraction), "train"
    for split, of_split, part_of in zip(("train", "validation"), rows, (None, held_out_of), strict=True):
        labels = of_split["label"] if "label" in of_split.column_names else None
        source.summary.add(split, of_split, labels, part_of, content_of_rows(of_split))
    run.describe_data(source.summary)
    return rows


def load_split(run: Run, source: Source, split: str | None, files: MediaFiles):
    """Load a split, without broken files if the user wants so."""
    return drop_broken(source.load(split), run, files, source.found)


def drop_broken(rows, run: Run, files: MediaFiles, found: DataFiles | None = None):
    """The rows; with `--skip_broken` without files that cannot be opened, which are named and left out of `found`."""
    return files.without_broken(rows, found, run.say) if run.arguments.columns.skip_broken else rows
