"""From the flags of a text method to its data: corpus, tokenizer, and windows that are prepared once and kept."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from toolkit.corpora.arguments import CleaningArguments, CorpusArguments, HeldOutTextArguments, NewTokenizerArguments
from toolkit.corpora.corpus import Corpus, open_corpus_of
from toolkit.corpora.prepared import WHOLE, Recipe, Shard, notes_of, open_prepared, prepare
from toolkit.data.cache import cached_folder, digest
from toolkit.data.rows import spread
from toolkit.data.splits import split_named
from toolkit.errors import InputError, readable
from toolkit.hub.arguments import HubArguments
from toolkit.models.families import FAMILIES, OUTPUT_WORDS
from toolkit.pretraining.method import PresetArguments
from toolkit.pretraining.run import VALIDATION_ROWS, Run
from toolkit.runs.arguments import Arguments, defaults, flags_of
from toolkit.runs.output import OutputArguments
from toolkit.runs.progress import Parts
from toolkit.training.arguments import TrainingArguments

WINDOW_FLAGS = ("units", "max_length", "packing")  # that a folder of `toolkit prepare` keeps
PREPARED_FILE, TOKENIZERS = "prepared.json", ("tokenizer", OUTPUT_WORDS)  # in a folder of `toolkit prepare`


@dataclass(kw_only=True)
class TextCorpusArguments(Arguments):
    """What all commands share that read a corpus for an encoder."""

    text: CorpusArguments
    output: OutputArguments
    encoder: PresetArguments
    tokenizer: NewTokenizerArguments = defaults(NewTokenizerArguments)
    held_out: HeldOutTextArguments = defaults(HeldOutTextArguments)
    cleaning: CleaningArguments = defaults(CleaningArguments)


@dataclass(kw_only=True)
class TextPretrainingArguments(TextCorpusArguments):
    """What the methods on windows of text share."""

    training: TrainingArguments
    hub: HubArguments = defaults(HubArguments)

    def check(self) -> None:
        self.training = self.training.with_default_epochs(1.0)


def open_split_corpus(run: Run) -> tuple[Corpus, Corpus]:
    """Open the text to train on and held-out text: the one that is named, or the last part of the corpus."""
    arguments, held_out = run.arguments, run.arguments.held_out
    with run.main_process_first():  # the other processes find the scan of the files in the cache
        corpus = open_corpus_of(arguments.text, arguments.cleaning, shows=run.is_main)
        if held_out.validation_corpus is None:
            both = corpus.hold_out(held_out.validation_fraction)
        else:
            other = dataclasses.replace(arguments.text, corpus=held_out.validation_corpus, split="validation")
            both = corpus, open_corpus_of(other, arguments.cleaning, shows=run.is_main)
    summary = both[0].summary(arguments.text.split)
    if held_out.validation_corpus is None:
        part_of = split_named(arguments.text.split or "train")
        summary.add("validation", both[1], part_of=part_of, content=both[1].key)
    else:
        run.describe_data(both[1].summary("validation"))
    run.describe_data(summary)
    return both


def byte_tokenizer(run: Run):
    """A tokenizer that spells words in bytes: that of `--tokenizer`, or a new one.

    Raises `InputError` if `--tokenizer` is of another kind.
    """
    from tokenizers.normalizers import BertNormalizer

    from toolkit.corpora.tokenization import is_byte_level, load_tokenizer
    from toolkit.corpora.tokenizer_training import train_tokenizer

    flags = run.arguments.tokenizer
    if flags.tokenizer is None:
        return train_tokenizer((), "bytes", do_lower_case=flags.do_lower_case)
    tokenizer = load_tokenizer(flags.tokenizer)
    normalizer = tokenizer.backend_tokenizer.normalizer
    if not is_byte_level(tokenizer):
        fault = f"does not fit {run.family.reader}, which reads bytes of words"
    elif not isinstance(normalizer, BertNormalizer):
        fault = f"has the normalizer {type(normalizer).__name__}, expected BertNormalizer"
    else:
        return tokenizer
    raise InputError(f"--tokenizer {flags.tokenizer}: {fault}; make one with: toolkit tokenizer --kind bytes")


def new_tokenizer(kind: Literal["wordpiece", "word"], normalizer, corpus: Corpus, run: Run):
    """A tokenizer trained on the corpus, or found in the cache if it was trained before."""
    from toolkit.corpora.tokenization import MAX_LETTERS_A_WORD, load_tokenizer
    from toolkit.corpora.tokenizer_training import train_on_corpus

    size = run.arguments.tokenizer.vocab_size or run.preset.default_size
    memory_gb, num_proc = run.arguments.cleaning.memory_gb, run.arguments.cleaning.num_proc

    def train(folder: Path) -> None:
        progress = Parts("counting words", run.is_main)
        settings: Any = {"memory_gb": memory_gb, "num_proc": num_proc, "on_block": progress}
        tokenizer, words = train_on_corpus(corpus, kind, normalizer, size, **settings)
        run.say(*words.left_out())
        tokenizer.save_pretrained(folder)

    versions = version("tokenizers"), MAX_LETTERS_A_WORD
    made_of = (corpus.key, kind, normalizer.__getstate__().decode(), size, memory_gb, versions)
    with run.main_process_first():
        folder = cached_folder("tokenizers", digest(*made_of), train)
    return load_tokenizer(folder)


def load_windows(
    run: Run, make_recipe: Callable[[Run, Corpus], tuple[list[Any], Recipe]]
) -> tuple[list[Any], tuple[Any, Any]]:
    """The tokenizers, and windows to train on and held-out ones: from a prepared folder, or made now and kept.

    `make_recipe` makes the tokenizers, and with them the recipe of the windows, for the text to train on.
    """
    from toolkit.corpora.tokenization import load_tokenizer

    if (folder := find_prepared(run)) is not None:
        names = TOKENIZERS if run.family.windows == "words" else TOKENIZERS[:1]
        tokenizers = [load_tokenizer(folder / name) for name in names]
        return tokenizers, _open_windows(folder / "train", folder / "validation")
    corpus = open_split_corpus(run)
    tokenizers, recipe = make_recipe(run, corpus[0])
    say_what_is_lost(run, tokenizers[0], corpus[0])
    with run.main_process_first():
        return tokenizers, _open_windows(*(prepare_part(part, recipe, run) for part in corpus))


def say_what_is_lost(run: Run, tokenizer, corpus: Corpus) -> None:
    """Say how much of the first texts of a corpus the tokenizer does not know."""
    from toolkit.corpora.encoding import describe_lost_text

    run.say(describe_lost_text(tokenizer, corpus.texts()))


def prepare_part(corpus: Corpus, recipe: Recipe, run: Run, folder: Path | None = None, shard: Shard = WHOLE) -> Path:
    """Make windows of a corpus, by default in the cache, and say what of the corpus was left out."""
    num_proc = run.arguments.cleaning.num_proc
    folder = prepare(corpus, recipe, folder, num_proc, shard, Parts("tokenizing", run.is_main))
    run.say(*notes_of(folder).lines())
    return folder


def _open_windows(train: Path, validation: Path) -> tuple[Any, Any]:
    """Open prepared windows, a sample of the held-out ones. Raises `InputError` if there are none."""
    train_rows, validation_rows = open_prepared(train), open_prepared(validation)
    for rows, what in ((train_rows, "text to train on"), (validation_rows, "held-out text")):
        if len(rows) == 0:
            raise InputError(f"the {what} has no word that the tokenizer knows; give more, or --validation_corpus")
    return train_rows, spread(validation_rows, 8 * VALIDATION_ROWS)


def find_prepared(run: Run) -> Path | None:
    """The folder of `toolkit prepare` that `--corpus` names; None if it names text.

    Raises `InputError` if the windows in it do not fit the method or its flags.
    """
    flags, folder = run.flags, Path(run.flags["corpus"])
    if not (folder / PREPARED_FILE).is_file():
        return None
    with readable(folder / PREPARED_FILE):
        settings = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8"))
    windows = run.family.windows or "text"
    if windows != settings["windows"]:
        *others, last = (name for name, family in FAMILIES.items() if family.windows == settings["windows"])
        made_for = f"{', '.join(others)} and {last}" if others else last
        raise InputError(f"--corpus {folder}: was prepared for {made_for}; {run.method} reads {windows}")
    for name in WINDOW_FLAGS:
        if name in flags and flags[name] != settings.get(name, flags[name]):
            raise InputError(f"--{name} {flags[name]}: {folder} was prepared with --{name} {settings[name]}")
    of_text = (CorpusArguments, CleaningArguments, HeldOutTextArguments, NewTokenizerArguments)
    for name, flag in flags_of(type(run.arguments)).items():
        if flag.group in of_text and name != "corpus" and flags[name] != flag.default:
            raise InputError(f"--{name}: goes with text; {folder} holds what was made of it")
    return folder
