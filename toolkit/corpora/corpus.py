"""A corpus of text: a stream of batches of texts, in blocks that processes read side by side.

Files are looked through once. What was found is remembered, in the cache of `datasets`, until a file changes.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

from toolkit.corpora.arguments import CleaningArguments, CorpusArguments, OnError
from toolkit.corpora.blocks import HUB, Block, Fault, Scan, Texts, stamp_of
from toolkit.corpora.cleaning import NO_CLEANING, Cleaning, Notes
from toolkit.corpora.duplicates import DuplicateSearch, rows_that_repeat, without_rows
from toolkit.corpora.formats import SUFFIXES, look_through, read_block
from toolkit.corpora.sample_text import sample_file
from toolkit.data import sources
from toolkit.errors import InputError, first_line
from toolkit.runs.output import write_json
from toolkit.runs.progress import Parts

SECONDS_TO_SETTLE = 2  # a file that was younger when it was read may have changed within the tick of its clock
_VERSION = 2  # of how text is read and cut into blocks


@dataclass(frozen=True)
class Corpus:
    """Text in blocks. `key` tells it from every other one by what is in it, wherever it stands."""

    source: str
    blocks: tuple[Block, ...]
    key: str
    column: str | None = None  # None where rows are lines
    on_error: OnError = "fail"
    faults: tuple[Fault, ...] = ()  # those that looking through the files has found
    cleaning: Cleaning = NO_CLEANING
    duplicates: Path | None = None  # a folder with the rows of each file that repeat earlier ones

    def __len__(self) -> int:
        """Rows, also those that cannot be read."""
        return sum(block.num_rows for block in self.blocks)

    def read(self, block: Block, notes: Notes) -> Iterator[list[str]]:
        """The texts of a block in batches. What is left out goes to `notes`, or is raised as `InputError`."""
        for _, texts in self.read_rows(block, notes):
            if found := [text for text in texts if text is not None]:
                yield found

    def read_rows(self, block: Block, notes: Notes) -> Iterator[tuple[int, Texts]]:
        """The same with None for what is left out, and the number of the first row of each batch in its file."""
        row = block.first_row + block.skip
        repeated = None if self.duplicates is None else rows_that_repeat(self.duplicates, block.file)
        for texts in read_block(block, self.column, _fail if self.on_error == "fail" else notes.note):
            if repeated is not None:
                texts = without_rows(texts, row, repeated, notes)
            yield row, self.cleaning(texts, notes) if self.cleaning else texts
            row += len(texts)

    def __iter__(self) -> Iterator[list[str]]:
        """All texts in batches, without what cannot be read, or it is raised as `InputError`."""
        for block in self.blocks:
            yield from self.read(block, Notes())

    def texts(self) -> Iterator[str]:
        """The same one by one."""
        return chain.from_iterable(self)

    def rows(self, first: int, last: int) -> "Corpus":
        """The rows from `first` to before `last`."""
        found, start = [], 0
        for block in self.blocks:
            begin, end = max(first - start, 0), min(last - start, block.num_rows)
            if begin < end:
                found.append(replace(block, skip=block.skip + begin, num_rows=end - begin))
            start += block.num_rows
        return replace(self, blocks=tuple(found), key=digest(self.key, first, last))

    def divided(self, least: int) -> "Corpus":
        """The same with at least so many blocks, where it has as many rows."""
        size = max(1, -(-len(self) // least))
        parts = (
            replace(block, skip=block.skip + start, num_rows=min(size, block.num_rows - start))
            for block in self.blocks
            for start in range(0, block.num_rows, size)
        )
        return replace(self, blocks=tuple(parts))

    def hold_out(self, fraction: float) -> tuple["Corpus", "Corpus"]:
        """Split off the last `fraction` of the rows, at least one: (train, validation)."""
        num_held_out = max(1, round(len(self) * fraction))
        if num_held_out >= len(self):
            raise InputError(f"the corpus has {len(self)} rows, too few to hold out {num_held_out} for validation")
        cut = len(self) - num_held_out
        return self.rows(0, cut), replace(self.rows(cut, len(self)), faults=())

    def spread(self, size: int) -> list[str]:
        """At most `size` texts, evenly spread over all."""
        step = max(1, -(-len(self) // size))
        return list(islice(self.texts(), 0, None, step))


def open_corpus(
    source: str,
    split: str | None = None,
    text_column: str | None = None,
    on_error: OnError = "fail",
    cleaning: Cleaning = NO_CLEANING,
    search: DuplicateSearch | None = None,
    num_proc: int | None = None,
    on_block: Callable[[int, int], None] = lambda done, of: None,
) -> Corpus:
    """The text of a file, folder or glob of `.txt`, `.jsonl`, `.csv` or `.parquet`, each also with `.gz`, of a Hub id,
    whose files are streamed, or of the `sample`; mended as `cleaning` says, without what `search` finds repeated.

    Raises `InputError` where there is none, it is empty or has no such column; also, unless `on_error` is `skip`,
    where a file cannot be read.
    """
    files = _files_of(source, split)
    is_plain = {sources.suffix_of(Path(file)) == ".txt" for file in files}
    if len(is_plain) > 1:
        raise InputError(f"{source}: plain text and tables together, name one kind, for example '{source}/*.txt'")
    scans, column = [], None
    for file in files:
        scan = _remembered(file)
        if scan.blocks and is_plain == {False}:
            if column is None:
                column = _text_column(source, scan, text_column)
            elif fault := _fault_of_column(scan, column):
                scan = scan._replace(blocks=[], faults=[fault])
        if scan.faults and on_error == "fail":
            _fail(scan.faults[0])
        scans.append(scan)
    blocks = tuple(block for scan in scans for block in scan.blocks)
    faults = tuple(fault for scan in scans for fault in scan.faults)
    key = digest(_VERSION, [scan.content for scan in scans], column, on_error, *map(str, (cleaning, search)))
    corpus = Corpus(source, blocks, key, column, on_error, faults, cleaning)
    if not any(text and not text.isspace() for text in corpus.texts()):
        raise InputError(f"{source}: there is no text in it, only empty lines")
    if search is not None:
        folder = cache_folder() / "duplicates" / digest(key, files)
        with locked(folder.name):
            if not folder.is_dir():
                aside = folder.with_suffix(".partial")  # where a search that was stopped goes on
                aside.mkdir(parents=True, exist_ok=True)
                search(corpus, aside, num_proc, on_block)
                aside.rename(folder)
        corpus = replace(corpus, duplicates=folder)
    return corpus


def open_corpus_of(text: CorpusArguments, cleaning: CleaningArguments, shows: bool = True) -> Corpus:
    """The corpus that the flags name. `shows` says whether progress is shown."""
    search = None
    if cleaning.deduplicate is not None:
        search = DuplicateSearch(cleaning.deduplicate, cleaning.unit, cleaning.similarity)
    return open_corpus(
        text.corpus,
        text.split,
        text.text_column,
        cleaning.on_error,
        Cleaning(cleaning.fix_text, cleaning.min_words, cleaning.min_letters),
        search,
        cleaning.num_proc,
        Parts("looking for duplicates", shows),
    )


def cache_folder() -> Path:
    """Where what is made of corpora is kept; `HF_DATASETS_CACHE` says."""
    from huggingface_hub.constants import HF_HOME

    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets").expanduser() / "toolkit"


def locked(name: str):
    """A lock, over all processes that share the cache, on what has such a name. Raises `InputError`."""
    from filelock import FileLock

    folder = cache_folder() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({first_line(error)}); set HF_DATASETS_CACHE to a folder that can be written to"
        ) from None
    return FileLock(folder / digest(name))


def digest(*parts: Any) -> str:
    """A name for such parts, of anything that JSON knows."""
    import xxhash

    return xxhash.xxh3_128(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fail(fault: Fault) -> NoReturn:
    raise InputError(f"{fault}; or leave out what cannot be read with --on_error skip")


def _files_of(source: str, split: str | None) -> list[str]:
    if source == sources.SAMPLE:
        with locked(sources.SAMPLE):
            return [str(sample_file(split or "train", cache_folder()))]
    files = sources.find_files(source, SUFFIXES, split)
    return _files_of_hub(source, split or "train") if files is None else [str(file) for file in files]


def _files_of_hub(source: str, split: str) -> list[str]:
    files = sources.files_of_hub(source, split)
    if unknown := [file for file in files if sources.suffix_of(Path(file)) not in SUFFIXES]:
        raise InputError(f"{source}: cannot read {unknown[0]}, expected {', '.join(sorted(SUFFIXES))}")
    return files


def _text_column(source: str, scan: Scan, named: str | None) -> str:
    """The column that holds the text. Raises `InputError` where it holds something else."""
    column = sources.choose_column(source, list(scan.columns), "text_column", named, sources.USUAL_TEXT_COLUMNS)
    if (kind := scan.columns[column]) != "text":
        raise InputError(f"{source}: the column '{column}' holds {kind}, not text")
    return column


def _fault_of_column(scan: Scan, column: str) -> Fault | None:
    """What is wrong with a further file, if anything."""
    kind = scan.columns.get(column)
    if kind is None:
        return Fault(scan.blocks[0].file, 0, f"has no column '{column}', found {', '.join(scan.columns) or 'none'}")
    if kind not in ("text", "numbers"):  # numbers may be written as text
        return Fault(scan.blocks[0].file, 0, f"the column '{column}' holds {kind}, not text")
    return None


def _remembered(file: str) -> Scan:
    """What looking through a file finds, or found before it was last changed."""
    try:
        stamp = stamp_of(file)
    except OSError:
        return look_through(file)
    name = digest(_VERSION, stamp)
    memo = cache_folder() / "files" / f"{name}.json"
    with locked(name):
        try:
            content, blocks, faults, columns = json.loads(memo.read_text(encoding="utf-8"))
            found = [Block(file, *block) for block in blocks], [Fault(file, *fault) for fault in faults]
            return Scan(content, *found, columns)
        except (OSError, ValueError, TypeError):
            pass
        scan = look_through(file)
        is_settled = file.startswith(HUB) or time.time() - int(stamp[-1]) / 1e9 > SECONDS_TO_SETTLE
        if scan.content and is_settled:
            blocks = [dataclasses.astuple(block)[1:] for block in scan.blocks]
            write_json(memo, [scan.content, blocks, [fault[1:] for fault in scan.faults], scan.columns])
        return scan
