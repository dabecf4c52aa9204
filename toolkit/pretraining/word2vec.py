"""word2vec: skip-gram with negative sampling, trained by gensim.

Mikolov, Sutskever, Chen, Corrado & Dean (2013), "Distributed representations of words and phrases and their
compositionality", https://arxiv.org/abs/1310.4546.
"""

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from toolkit.corpora.corpus import Corpus
from toolkit.corpora.encoding import token_spacer, word_spacer
from toolkit.corpora.tokenization import bert_normalizer, load_tokenizer, word_level_tokenizer
from toolkit.corpora.tokenizer_training import words_that_fit
from toolkit.corpora.word_counts import Space
from toolkit.errors import check_not_negative, check_positive
from toolkit.hub.arguments import HubArguments
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import VALIDATION_ROWS, Run, write_record
from toolkit.pretraining.skip_gram import Sentences, skip_gram_losses, train_word_vectors, write_corpus
from toolkit.pretraining.text_corpus import TextCorpusArguments, find_prepared, open_split_corpus
from toolkit.runs.arguments import Arguments, defaults
from toolkit.runs.results import LOG_FILE


@dataclass(kw_only=True)
class SkipGramArguments(Arguments):
    """skip-gram"""

    num_train_epochs: int = 5
    """Passes over the corpus."""
    max_minutes: float | None = None
    """Stop after the first epoch that ends later than this."""
    learning_rate: float = 0.025
    """Initial learning rate; it falls linearly to almost zero."""
    window: int = 5
    """Words on each side that are predicted."""
    negative: int = 5
    """Number of negative samples."""
    min_count: int = 5
    """Ignore words that occur fewer times."""
    workers: int = 2
    """gensim's threads; with one thread the result is reproducible."""
    seed: int = 0
    """Seed of the initial vectors."""

    def check(self) -> None:
        check_positive(self, "num_train_epochs max_minutes learning_rate window negative min_count workers")
        check_not_negative(self, "seed")


@dataclass(kw_only=True)
class Word2VecArguments(TextCorpusArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="word2vec-mini")
    training: SkipGramArguments = defaults(SkipGramArguments)
    hub: HubArguments = defaults(HubArguments)


def pretrain_word2vec(arguments: Word2VecArguments) -> dict[str, Any]:
    """Train word vectors; returns the record."""
    run = Run("word2vec", arguments)
    given, normalizer = None, bert_normalizer(arguments.tokenizer.do_lower_case)
    space = word_spacer(normalizer)
    if arguments.tokenizer.tokenizer is not None:
        given = load_tokenizer(arguments.tokenizer.tokenizer)
        space = token_spacer(given)

    def export(word_vectors) -> tuple[Any, Any]:
        from toolkit.models.word2vec import Word2VecModel

        tokenizer = given or word_level_tokenizer(word_vectors.index_to_key, normalizer)
        config = run.preset.config(len(tokenizer))
        return Word2VecModel.from_word_vectors(config, word_vectors, tokenizer.get_vocab()), tokenizer

    return train_and_record_vectors(run, space, export)


def train_and_record_vectors(
    run: Run, space: Space, export: Callable[[Any], tuple[Any, Any]], ngrams: dict[str, int] | None = None
) -> dict[str, Any]:
    """Train vectors with gensim on the main process, score them on held-out text, write model and record.

    `space` splits texts into words, `export` makes a model and a tokenizer of gensim's `KeyedVectors`, and `ngrams`
    are fastText's settings of n-grams.
    """
    find_prepared(run)  # raises: these methods read text
    train_text, held_out_text = open_split_corpus(run)
    if not run.is_main:
        return {}
    flags = run.arguments.training
    log: list[dict[str, Any]] = []

    def on_epoch_end(num_epochs: int, seconds: float) -> None:
        speed = sentences.words.num_words * num_epochs / seconds
        log.append({"step": num_epochs, "epoch": num_epochs, "seconds": seconds, "words_per_second": speed})
        run.say(f"epoch {num_epochs} of {flags.num_train_epochs}, {speed:,.0f} words/s")

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as background:
        sentences = _write_sentences(run, train_text, space, Path(folder))
        start = run.stopwatch.seconds
        for module in (f"toolkit.models.{run.method}", "toolkit.training.checkpoints"):  # torch takes seconds
            background.submit(import_module, module)
        settings = {
            "vector_size": run.preset.sizes[0],
            "max_final_vocab": run.arguments.tokenizer.vocab_size or run.preset.default_size,
            "epochs": flags.num_train_epochs,
            "alpha": flags.learning_rate,
            **{name: getattr(flags, name) for name in ("window", "negative", "min_count", "workers", "seed")},
        }
        vectors, num_epochs = train_word_vectors(sentences, settings, ngrams, flags.max_minutes, on_epoch_end)
        seconds = run.stopwatch.seconds - start
    model, tokenizer = export(vectors.wv)
    metrics, num_words = _held_out_metrics(vectors, space(held_out_text.spread(8 * VALIDATION_ROWS)), flags.seed)
    from toolkit.training.checkpoints import save_model

    output_dir = run.create_output_dir()
    save_model(output_dir, model, tokenizer)
    (output_dir / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    speed, is_deterministic = (
        sentences.words.num_words * num_epochs / seconds,
        flags.workers == 1 and flags.max_minutes is None,
    )
    return write_record(run, model, metrics, num_words, "word", num_epochs, seconds, speed, is_deterministic)


def _write_sentences(run: Run, text: Corpus, space: Space, folder: Path) -> Sentences:
    cleaning, workers = run.arguments.cleaning, run.arguments.training.workers
    max_words = words_that_fit(cleaning.memory_gb)
    sentences = write_corpus(text, space, folder / "sentences.txt", cleaning.num_proc or workers, max_words)
    run.say(*sentences.words.left_out())
    run.say(f"training on {sentences.words.num_words:,} words with {workers} workers")
    if run.has_launcher and run.accelerator.num_processes > 1:
        run.say("these are threads of the main process; gensim has no use for the other processes")
    return sentences


def _held_out_metrics(vectors, lines: list[str], seed: int) -> tuple[dict[str, Any], int]:
    """The loss and the fraction of known words on lines of words, and the number of words."""
    from toolkit.metrics.intervals import ratio_interval

    sentences = [words for line in lines if (words := line.split())]
    known = [sum(word in vectors.wv.key_to_index for word in words) for words in sentences]
    lengths = [len(words) for words in sentences]
    loss = ratio_interval(*skip_gram_losses(vectors, sentences, seed))
    return {"loss": loss, "known_words": ratio_interval(known, lengths)}, sum(lengths)


METHOD = Method(Word2VecArguments, pretrain_word2vec)
