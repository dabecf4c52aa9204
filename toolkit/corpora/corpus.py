"""A corpus of text of any size: batches of texts, in blocks that processes read side by side."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import NoReturn

from toolkit.corpora.arguments import CleaningArguments, CorpusArguments, OnError
from toolkit.corpora.blocks import Block, Fault, Scan, Texts
from toolkit.corpora.cleaning import NO_CLEANING, Cleaning, Notes
from toolkit.corpora.duplicates import DuplicateSearch, rows_that_repeat, without_rows
from toolkit.corpora.formats import SUFFIXES, read_block, scan_file
from toolkit.corpora.sample_text import sample_file
from toolkit.corpora.workers import OnDone
from toolkit.data import sources, table_files
from toolkit.data.cache import cache_folder, cached_folder, cached_json, digest, locked
from toolkit.data.files import HUB, stamp_of
from toolkit.data.rows import num_held_out
from toolkit.data.splits import split_named
from toolkit.data.summary import DataSummary
from toolkit.errors import InputError
from toolkit.runs.progress import Parts

SECONDS_TO_SETTLE = 2  # a file that changes again so soon may keep its time of modification
_VERSION = 3  # of how text is read and cut into blocks


@dataclass(frozen=True)
class Corpus:
    """Text in blocks. Its key is a hash of the content and of how it is read, wherever the files are."""

    source: str
    blocks: tuple[Block, ...]
    key: str
    column: str | None = None  # None if rows are lines
    on_error: OnError = "fail"
    faults: tuple[Fault, ...] = ()  # found when the files were scanned
    cleaning: Cleaning = NO_CLEANING
    duplicates: Path | None = None  # a folder with the numbers of the rows of each file that repeat earlier ones

    def __len__(self) -> int:
        """The number of rows, including those that cannot be read."""
        return sum(block.num_rows for block in self.blocks)

    def read(self, block: Block, notes: Notes) -> Iterator[list[str]]:
        """Read the texts of a block in batches. What cannot be read is noted, or raised as `InputError`."""
        for _, texts in self.read_rows(block, notes):
            if found := [text for text in texts if text is not None]:
                yield found

    def read_rows(self, block: Block, notes: Notes) -> Iterator[tuple[int, Texts]]:
        """Like `read`, with None for what is left out, and with the number of the first row of each batch."""
        row = block.first_row + block.skip
        repeated = None if self.duplicates is None else rows_that_repeat(self.duplicates, block.file)
        for texts in read_block(block, self.column, _fail if self.on_error == "fail" else notes.note):
            if repeated is not None:
                texts = without_rows(texts, row, repeated, notes)
            yield row, texts if self.cleaning == NO_CLEANING else self.cleaning(texts, notes)
            row += len(texts)

    def summary(self, split: str | None) -> DataSummary:
        """What the source holds; this corpus is `split` of it (default: train)."""
        found = DataSummary(self.source, sources.find_local(self.source, SUFFIXES))
        found.add(split_named(split or "train"), self, content=self.key)
        return found

    def __iter__(self) -> Iterator[list[str]]:
        """Read all texts in batches."""
        for block in self.blocks:
            yield from self.read(block, Notes())

    def texts(self) -> Iterator[str]:
        """Read all texts one by one."""
        return chain.from_iterable(self)

    def rows(self, first: int, last: int) -> "Corpus":
        """The rows from `first` to before `last`."""
        found, start = [], 0
        for block in self.blocks:
            begin, end = max(first - start, 0), min(last - start, block.num_rows)
            if begin < end:
                found.append(block.part(begin, end - begin))
            start += block.num_rows
        return replace(self, blocks=tuple(found), key=digest(self.key, first, last))

    def divided(self, num_blocks: int) -> "Corpus":
        """The same corpus with at least so many blocks, if it has as many rows."""
        size = max(1, -(-len(self) // num_blocks))
        return replace(self, blocks=tuple(part for block in self.blocks for part in block.divided(size)))

    def hold_out(self, fraction: float) -> tuple["Corpus", "Corpus"]:
        """Split off the last `fraction` of the rows, at least one: (train, validation)."""
        cut = len(self) - num_held_out(len(self), fraction)
        return self.rows(0, cut), replace(self.rows(cut, len(self)), faults=())

    def spread(self, size: int) -> list[str]:
        """At most `size` texts, evenly spaced over the corpus."""
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
    on_block: OnDone | None = None,
) -> Corpus:
    """Open the text of a source, cleaned and without the duplicates that `search` finds.

    A source is a file, folder or glob of `.txt`, `.jsonl`, `.csv` or `.parquet`, each also with `.gz`; a Hub id, whose
    files are streamed; or `sample`. `num_proc` processes search, by default one per core; `on_block` is called after
    each block that was searched.

    Raises:
        InputError: There is no such source, text or column; or, if `on_error` is `fail`, a file cannot be read.
    """
    files = _files_of(source, split)
    is_plain = {sources.suffix_of(Path(file)) == ".txt" for file in files}
    if len(is_plain) > 1:
        raise InputError(f"{source}: plain text and tables together, name one kind, for example '{source}/*.txt'")
    scans, column = [], None
    for file in files:
        scan = _scan_once(file)
        if scan.blocks and is_plain == {False}:
            if column is None:
                column = _text_column(source, scan, text_column)
            elif what := _column_fault(scan, column):
                scan = scan._replace(blocks=[], faults=[Fault(file, 0, what)])
        if scan.faults and on_error == "fail":
            _fail(scan.faults[0])
        scans.append(scan)
    blocks = tuple(block for scan in scans for block in scan.blocks)
    faults = tuple(fault for scan in scans for fault in scan.faults)
    key = digest(_VERSION, [scan.content for scan in scans], column, on_error, *map(str, (cleaning, search)))
    corpus = Corpus(source, blocks, key, column, on_error, faults, cleaning)
    if not any(text and not text.isspace() for text in corpus.texts()):
        raise InputError(f"{source}: there is no text in it, only empty lines")
    if search is None:
        return corpus
    name = digest(key, files)
    folder = cached_folder("duplicates", name, lambda folder: search.find(corpus, folder, num_proc, on_block))
    return replace(corpus, duplicates=folder)


def open_corpus_of(text: CorpusArguments, cleaning: CleaningArguments, shows: bool = True) -> Corpus:
    """Open the corpus that flags describe. `shows` says whether progress is shown."""
    alike, on_error, num_proc = cleaning.deduplicate, cleaning.on_error, cleaning.num_proc
    search = None if alike is None else DuplicateSearch(alike, cleaning.unit, cleaning.similarity)
    cleaner = Cleaning(cleaning.fix_text, cleaning.min_words, cleaning.min_letters)
    progress = Parts("looking for duplicates", shows)
    return open_corpus(text.corpus, text.split, text.text_column, on_error, cleaner, search, num_proc, progress)


def _fail(fault: Fault) -> NoReturn:
    raise InputError(f"{fault}; or leave out what cannot be read with --on_error skip")


def _files_of(source: str, split: str | None) -> list[str]:
    if source == sources.SAMPLE:
        with locked(sources.SAMPLE):
            return [str(sample_file(split or "train", cache_folder()))]
    found = sources.find_files(source, SUFFIXES, split)
    if found is not None:
        return [str(file) for file in found]
    files = table_files.files_of_hub(source, split or "train")
    if unknown := [file for file in files if sources.suffix_of(Path(file)) not in SUFFIXES]:
        raise InputError(f"{source}: cannot read {unknown[0]}, expected {', '.join(sorted(SUFFIXES))}")
    return files


def _text_column(source: str, scan: Scan, named: str | None) -> str:
    """The column that holds the text. Raises `InputError` if it holds something else."""
    column = table_files.choose_column(
        source, list(scan.columns), "text_column", named, table_files.USUAL_TEXT_COLUMNS
    )
    if (kind := scan.columns[column]) != "text":
        raise InputError(f"{source}: the column '{column}' holds {kind}, not text")
    return column


def _column_fault(scan: Scan, column: str) -> str | None:
    """What is wrong with the column of a further file, if anything."""
    if column not in scan.columns:
        return f"has no column '{column}', found {', '.join(scan.columns) or 'none'}"
    kind = scan.columns[column]  # numbers may be written as text
    return None if kind in ("text", "numbers") else f"the column '{column}' holds {kind}, not text"


def _scan_once(file: str) -> Scan:
    """Scan a file, or take from the cache what was found before, if the file has not changed since."""
    try:
        stamp = stamp_of(file)
    except OSError:
        return scan_file(file)

    def is_final(scan: Scan) -> bool:
        is_settled = file.startswith(HUB) or time.time() - int(stamp[-1]) / 1e9 > SECONDS_TO_SETTLE
        return bool(scan.content) and is_settled

    content, blocks, faults, columns = cached_json("scans", digest(_VERSION, stamp), lambda: scan_file(file), is_final)
    # The file may have been named in another way then.
    return Scan(content, [Block(file, *of[1:]) for of in blocks], [Fault(file, *of[1:]) for of in faults], columns)
