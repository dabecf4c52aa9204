"""Which text to read, and how: the flags of every command that reads a corpus of any size. Loads nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from toolkit.errors import check_flags, check_not_negative, check_positive, check_share

OnError = Literal["fail", "skip"]
Alike = Literal["exact", "near"]
Unit = Literal["line", "document"]
Packing = Literal["none", "lines"]
MEMORY_GB = 1.0


@dataclass(kw_only=True)
class TextArguments:
    corpus: str
    """Text: a file, folder or glob of .txt, .jsonl, .csv or .parquet (also .gz), a Hub id, or 'sample'."""
    split: str | None = None
    """Split of a folder or Hub data set (default: train)."""
    text_column: str | None = None
    """Column of a table that holds the text (default: text, sentence, content or document)."""
    on_error: OnError = "fail"
    """What cannot be read of the text, such as a line that is not UTF-8: end there and name it, or leave it out and
    list it."""
    deduplicate: Alike | None = None
    """Leave out what repeats earlier text, exactly or nearly, and say how much."""
    unit: Unit = "line"
    """What is compared by --deduplicate: lines, or documents, which are rows of tables and what empty lines part."""
    similarity: float = 0.8
    """From which share of common passages of five words on texts are nearly alike."""
    fix_text: bool = False
    """Mend text that was decoded wrongly, such as Ã© for é, by ftfy."""
    min_words: int = 0
    """Leave out lines of fewer words, but not empty ones, which part documents."""
    min_letters: float = 0.0
    """Leave out lines with a smaller share of letters, such as tables."""
    num_proc: int | None = None
    """Processes that read the text (default: one a core)."""
    memory_gb: float = MEMORY_GB
    """Memory, in GB over all processes, to count words in; of more words than fit the rarest are dropped, and how many
    is said."""

    def __post_init__(self):
        check_positive(self, "num_proc memory_gb")
        check_flags(self, "similarity", lambda value: 0.7 <= value <= 1, "a share from 0.7 to 1")
        check_not_negative(self, "min_words")
        check_share(self, "min_letters")
