"""The flags of every command that reads a corpus. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from toolkit.errors import check_between_0_and_1, check_flags, check_not_negative, check_positive, check_share
from toolkit.runs.arguments import Arguments

OnError = Literal["fail", "skip"]
Deduplicate = Literal["exact", "near"]
Unit = Literal["line", "document"]
Packing = Literal["none", "lines"]
MEMORY_GB = 1.0


@dataclass(kw_only=True)
class CorpusArguments(Arguments):
    """data"""

    corpus: str
    """Text: a file, folder or glob of .txt, .jsonl, .csv or .parquet (also .gz), a Hub id, 'sample', or (for pretrain)
    a folder written by toolkit prepare."""
    split: str | None = None
    """Split of a folder or Hub data set (default: train)."""
    text_column: str | None = None
    """Column of a table that holds the text (default: text, sentence, content or document)."""


@dataclass(kw_only=True)
class CleaningArguments(Arguments):
    """cleaning and reading of the text"""

    on_error: OnError = "fail"
    """What to do with text that cannot be read, such as a line that is not UTF-8: stop and name it, or skip it and
    list it."""
    deduplicate: Deduplicate | None = None
    """Remove text that repeats earlier text, exactly or nearly, and print how much."""
    unit: Unit = "line"
    """What --deduplicate compares: lines, or documents, which are rows of tables or what empty lines separate."""
    similarity: float = 0.8
    """Jaccard similarity of five-word shingles from which two texts are near duplicates."""
    fix_text: bool = False
    """Repair text that was decoded with the wrong encoding, such as Ã© for é, with ftfy."""
    min_words: int = 0
    """Remove lines with fewer words, but not empty lines, which separate documents."""
    min_letters: float = 0.0
    """Remove lines with a smaller fraction of letters, such as tables."""
    num_proc: int | None = None
    """Processes that read the text (default: one per core)."""
    memory_gb: float = MEMORY_GB
    """Memory in GB, over all processes, for counting words; if more words occur than fit, the rarest are dropped, and
    their number is printed."""

    def check(self) -> None:
        check_positive(self, "num_proc memory_gb")
        check_flags(self, "similarity", lambda value: 0.7 <= value <= 1, "a number from 0.7 to 1")
        check_not_negative(self, "min_words")
        check_share(self, "min_letters")


@dataclass(kw_only=True)
class HeldOutTextArguments(Arguments):
    """held-out text"""

    validation_corpus: str | None = None
    """Held-out text; by default the last part of the corpus, which is then not trained on."""
    validation_fraction: float = 0.01
    """Fraction of the lines to hold out if there is no --validation_corpus."""

    def check(self) -> None:
        check_between_0_and_1(self, "validation_fraction")


@dataclass(kw_only=True)
class NewTokenizerArguments(Arguments):
    """tokenizer"""

    tokenizer: str | None = None
    """Folder or Hub id of a tokenizer; by default one is trained on the corpus."""
    vocab_size: int | None = None
    """Maximum vocabulary size of a tokenizer trained here (default: that of the preset)."""
    do_lower_case: bool = False
    """Lower-case the text, for a tokenizer trained here."""

    def check(self) -> None:
        check_positive(self, "vocab_size")
