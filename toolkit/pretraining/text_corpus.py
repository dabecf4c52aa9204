"""From the flags of a text method to its data: corpus, tokenizer, and windows that are prepared once and kept."""

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toolkit.corpora.arguments import (
    CleaningArguments,
    CorpusArguments,
    HeldOutTextArguments,
    NewTokenizerArguments,
    Packing,
)
from toolkit.corpora.corpus import Corpus, open_corpus_of
from toolkit.corpora.prepared import WHOLE, Recipe, Shard, notes_of, open_prepared, prepare
from toolkit.data.cache import cache_folder, digest, locked
from toolkit.data.rows import spread
from toolkit.errors import InputError, check_flags, readable
from toolkit.models.families import FAMILIES, Preset, presets
from toolkit.pretraining.run import VALIDATION_ROWS, Run
from toolkit.runs.arguments import Arguments, defaults, flags_of, to_flags
from toolkit.runs.output import OutputArguments
from toolkit.runs.progress import Parts

PREPARED_FILE, TOKENIZER = "prepared.json", "tokenizer"  # in a folder of `toolkit prepare`


@dataclass(kw_only=True)
class ShardArguments(Arguments):
    """shards"""

    shard: str = "0/1"
    """Which shard to prepare, counted from 0: 3/8 is the fourth of eight. Every machine prepares one, then toolkit
    prepare merge puts them together."""

    def check(self) -> None:
        number, slash, of = self.shard.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and int(number) < int(of)):
            raise InputError(f"--shard {self.shard}: expected a number and how many there are, 0/8 to 7/8")


@dataclass(kw_only=True)
class PieceWindowArguments(Arguments):
    """windows"""

    max_length: int = 128
    """Tokens per window."""
    packing: Packing = "none"
    """How lines fill windows: 'none' joins all lines and cuts the result; 'lines' packs whole lines, and attention
    does not cross them. Held-out losses of the two are not comparable."""

    def check(self) -> None:
        check_flags(self, "max_length", lambda value: value >= 8, "at least 8")


@dataclass(kw_only=True)
class WordWindowArguments(Arguments):
    """windows"""

    max_length: int = 32
    """Words per window."""

    def check(self) -> None:
        check_flags(self, "max_length", lambda value: value >= 3, "at least 3")


@dataclass(kw_only=True)
class PrepareArguments(Arguments):
    """Arguments of `toolkit prepare`, without the windows and the preset of a method."""

    text: CorpusArguments
    output: OutputArguments
    shard: ShardArguments = defaults(ShardArguments)
    tokenizer: NewTokenizerArguments = defaults(NewTokenizerArguments)
    held_out: HeldOutTextArguments = defaults(HeldOutTextArguments)
    cleaning: CleaningArguments = defaults(CleaningArguments)


class SplitCorpus(NamedTuple):
    """Text to train on and held-out text."""

    train: Corpus
    held_out: Corpus


class PreparedFolder(NamedTuple):
    """A folder written by `toolkit prepare`: windows, and the tokenizers that they were made with."""

    folder: Path
    settings: dict[str, Any]

    def tokenizer(self, name: str = TOKENIZER):
        from toolkit.corpora.tokenization import load_tokenizer

        tokenizer = load_tokenizer(self.folder / name)
        if name == TOKENIZER and self.settings["windows"] == "pieces":
            tokenizer.model_max_length = self.settings["max_length"]
        return tokenizer

    def rows(self) -> tuple[Any, Any]:
        return open_windows(self.folder / "train", self.folder / "validation")


def find_preset(name: str, family: str | None = None, modality: str | None = None) -> Preset:
    """The preset of that name. Raises `InputError`, listing those of the family or modality, if there is none."""
    known = presets(modality, family)
    if name not in known:
        raise InputError(f"unknown preset '{name}', expected one of {', '.join(known)}")
    return known[name]


def open_split_corpus(
    text: CorpusArguments, cleaning: CleaningArguments, held_out: HeldOutTextArguments, run: Run
) -> SplitCorpus:
    """Open the corpus and hold out its last part, or open the held-out text that is named."""
    with run.main_process_first():  # the other processes find the scan of the files in the cache
        corpus = open_corpus_of(text, cleaning, shows=run.is_main)
        if held_out.validation_corpus is None:
            return SplitCorpus(*corpus.hold_out(held_out.validation_fraction))
        other = dataclasses.replace(text, corpus=held_out.validation_corpus, split="validation")
        return SplitCorpus(corpus, open_corpus_of(other, cleaning, shows=run.is_main))


def byte_tokenizer(flags: NewTokenizerArguments, reader: str):
    """A tokenizer that spells words in bytes: that of `--tokenizer`, or a new one.

    Args:
        flags: The flags of the tokenizer.
        reader: What reads it, for the message of the error.

    Raises:
        InputError: `--tokenizer` is of another kind.
    """
    from tokenizers.normalizers import BertNormalizer

    from toolkit.corpora.tokenization import is_byte_level, load_tokenizer
    from toolkit.corpora.tokenizer_training import train_tokenizer

    if flags.tokenizer is None:
        return train_tokenizer((), "bytes", do_lower_case=flags.do_lower_case)
    tokenizer = load_tokenizer(flags.tokenizer)
    normalizer = tokenizer.backend_tokenizer.normalizer
    fault = None
    if not is_byte_level(tokenizer):
        fault = f"does not fit {reader}, which reads bytes of words"
    elif not isinstance(normalizer, BertNormalizer):
        fault = f"has the normalizer {type(normalizer).__name__}, expected BertNormalizer"
    if fault is not None:
        raise InputError(f"--tokenizer {flags.tokenizer}: {fault}; make one with: toolkit tokenizer --kind bytes")
    return tokenizer


def piece_tokenizer(flags: NewTokenizerArguments, reader: str):
    """The tokenizer of `--tokenizer`, with a [MASK]; None if none is named.

    Raises:
        InputError: It has no [MASK], or spells words in bytes.
    """
    from toolkit.corpora.tokenization import load_tokenizer, spells_words

    if flags.tokenizer is None:
        return None
    tokenizer = load_tokenizer(flags.tokenizer)
    if tokenizer.mask_token_id is None or spells_words(tokenizer):
        raise InputError(
            f"--tokenizer {flags.tokenizer}: does not fit {reader}, which needs pieces of words and a [MASK]; "
            "make one with: toolkit tokenizer --kind wordpiece"
        )
    return tokenizer


def new_tokenizer(
    kind: Literal["wordpiece", "word"],
    normalizer,
    corpus: Corpus,
    vocab_size: int,
    cleaning: CleaningArguments,
    run: Run,
):
    """A tokenizer trained on the corpus, or found in the cache if it was trained before."""
    from toolkit.corpora.tokenization import load_tokenizer
    from toolkit.corpora.tokenizer_training import train_on_corpus

    made_of = (corpus.key, kind, normalizer.__getstate__().decode(), vocab_size, cleaning.memory_gb)
    folder = cache_folder() / "tokenizers" / digest(*made_of, version("tokenizers"))
    with run.main_process_first(), locked(folder.name):
        if not folder.is_dir():
            progress = Parts("counting words", run.is_main)
            settings: Any = {"memory_gb": cleaning.memory_gb, "num_proc": cleaning.num_proc, "on_block": progress}
            tokenizer, words = train_on_corpus(corpus, kind, normalizer, vocab_size, **settings)
            run.say(*words.left_out())
            partial = folder.with_suffix(".partial")
            tokenizer.save_pretrained(partial)
            partial.rename(folder)
    return load_tokenizer(folder)


def prepare_windows(recipe: Recipe, corpus: SplitCorpus, num_proc: int | None, run: Run) -> tuple[Any, Any]:
    """Make the windows of training and held-out text, once, by the main process, and open them."""
    with run.main_process_first():
        return open_windows(*(prepare_part(part, recipe, num_proc, run) for part in corpus))


def prepare_part(
    corpus: Corpus, recipe: Recipe, num_proc: int | None, run: Run, folder: Path | None = None, shard: Shard = WHOLE
) -> Path:
    """Make windows of a corpus, by default in the cache, and say what of the corpus was left out."""
    folder = prepare(corpus, recipe, folder, num_proc, shard, Parts("tokenizing", run.is_main))
    run.say(*notes_of(folder).lines())
    return folder


def open_windows(train: Path, validation: Path) -> tuple[Any, Any]:
    """Open prepared windows, a sample of the held-out ones. Raises `InputError` if there are none."""
    train_rows, validation_rows = open_prepared(train), open_prepared(validation)
    for rows, what in ((train_rows, "text to train on"), (validation_rows, "held-out text")):
        if len(rows) == 0:
            raise InputError(f"the {what} has no word that the tokenizer knows; give more, or --validation_corpus")
    return train_rows, spread(validation_rows, 8 * VALIDATION_ROWS)


def find_prepared(method: str, arguments: Any) -> PreparedFolder | None:
    """The folder of `toolkit prepare` that `--corpus` names; None if it names text.

    Raises:
        InputError: The windows in it do not fit the method or its flags.
    """
    flags = to_flags(arguments)
    folder = Path(flags["corpus"])
    if not (folder / PREPARED_FILE).is_file():
        return None
    with readable(folder / PREPARED_FILE):
        settings = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8"))
    wanted = {"windows": FAMILIES[method].windows or "text"}
    wanted |= {name: flags[name] for name in ("max_length", "packing") if name in flags}
    if wanted["windows"] != settings["windows"]:
        made_for = " and ".join(name for name, family in FAMILIES.items() if family.windows == settings["windows"])
        raise InputError(f"--corpus {folder}: was prepared for {made_for}; {method} reads {wanted['windows']}")
    for name, value in wanted.items():
        if settings[name] != value:
            raise InputError(f"--{name} {value}: {folder} was prepared with --{name} {settings[name]}")
    of_text = (CorpusArguments, CleaningArguments, HeldOutTextArguments, NewTokenizerArguments)
    for name, flag in flags_of(type(arguments)).items():
        if flag.group in of_text and name != "corpus" and flags[name] != flag.default:
            raise InputError(f"--{name}: goes with text; {folder} holds what was made of it")
    return PreparedFolder(folder, settings)
