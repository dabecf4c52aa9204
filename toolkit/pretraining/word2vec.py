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

from toolkit.corpora.arguments import CleaningArguments, CorpusArguments, HeldOutTextArguments, NewTokenizerArguments
from toolkit.corpora.encoding import token_spacer, word_spacer
from toolkit.corpora.tokenization import bert_normalizer, load_tokenizer, word_level_tokenizer
from toolkit.corpora.tokenizer_training import words_that_fit
from toolkit.errors import check_not_negative, check_positive
from toolkit.hub.arguments import HubArguments
from toolkit.models.families import Preset
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import VALIDATION_ROWS, Run, write_record
from toolkit.pretraining.skip_gram import (
    Sentences,
    SkipGramSettings,
    skip_gram_losses,
    train_word_vectors,
    write_corpus,
)
from toolkit.pretraining.text_corpus import SplitCorpus, find_prepared, find_preset, open_split_corpus
from toolkit.runs.arguments import Arguments, defaults
from toolkit.runs.output import OutputArguments
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
class Word2VecArguments(Arguments):
    text: CorpusArguments
    output: OutputArguments
    encoder: PresetArguments = defaults(PresetArguments, preset="word2vec-mini")
    training: SkipGramArguments = defaults(SkipGramArguments)
    tokenizer: NewTokenizerArguments = defaults(NewTokenizerArguments)
    held_out: HeldOutTextArguments = defaults(HeldOutTextArguments)
    cleaning: CleaningArguments = defaults(CleaningArguments)
    hub: HubArguments = defaults(HubArguments)


def pretrain_word2vec(arguments: Word2VecArguments) -> dict[str, Any]:
    """Train word vectors; returns the record."""
    preset = find_preset(arguments.encoder.preset, "word2vec")
    run = Run("word2vec", arguments)
    find_prepared("word2vec", arguments)  # raises: word2vec reads text
    corpus = open_split_corpus(arguments.text, arguments.cleaning, arguments.held_out, run)
    given, normalizer = None, bert_normalizer(arguments.tokenizer.do_lower_case)
    space = word_spacer(normalizer)
    if arguments.tokenizer.tokenizer is not None:
        given = load_tokenizer(arguments.tokenizer.tokenizer)
        space = token_spacer(given)

    def export(word_vectors) -> tuple[Any, Any]:
        from toolkit.models.word2vec import Word2VecModel

        tokenizer = given or word_level_tokenizer(word_vectors.index_to_key, normalizer)
        config = preset.config(len(tokenizer))
        return Word2VecModel.from_word_vectors(config, word_vectors, tokenizer.get_vocab()), tokenizer

    return train_and_record_vectors(run, corpus, preset, space, export)


def train_and_record_vectors(
    run: Run,
    corpus: SplitCorpus,
    preset: Preset,
    space: Callable[[list[str]], list[str]],
    export: Callable[[Any], tuple[Any, Any]],
    ngrams: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Train vectors with gensim on the main process, score them on held-out text, write model and record.

    Args:
        run: The run, whose arguments are those of word2vec or fastText.
        corpus: Training and held-out text.
        preset: Its first size is the vector size.
        space: Puts spaces between the words of each of a list of texts.
        export: Makes a model and a tokenizer of gensim's `KeyedVectors`.
        ngrams: fastText's settings of n-grams.
    """
    from toolkit.metrics.intervals import ratio_interval

    if not run.is_main:
        return {}
    flags = run.arguments.training
    log: list[dict[str, Any]] = []

    def on_epoch_end(num_epochs: int, seconds: float) -> None:
        speed = sentences.words.num_words * num_epochs / seconds
        log.append({"step": num_epochs, "epoch": num_epochs, "seconds": seconds, "words_per_second": speed})
        run.say(f"epoch {num_epochs} of {flags.num_train_epochs}, {speed:,.0f} words/s")

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as background:
        sentences = _write_sentences(run, corpus, space, Path(folder))
        start = run.stopwatch.seconds
        for module in (f"toolkit.models.{run.method}", "toolkit.training.checkpoints"):  # torch takes seconds
            background.submit(import_module, module)
        settings = SkipGramSettings(
            vector_size=preset.sizes[0],
            window=flags.window,
            negative=flags.negative,
            min_count=flags.min_count,
            max_final_vocab=run.arguments.tokenizer.vocab_size or preset.default_size,
            epochs=flags.num_train_epochs,
            alpha=flags.learning_rate,
            workers=flags.workers,
            seed=flags.seed,
        )
        vectors, num_epochs = train_word_vectors(sentences, settings, ngrams, flags.max_minutes, on_epoch_end)
        seconds = run.stopwatch.seconds - start
    model, tokenizer = export(vectors.wv)
    held_out = [words for line in space(corpus.held_out.spread(8 * VALIDATION_ROWS)) if (words := line.split())]
    known = [sum(word in vectors.wv.key_to_index for word in words) for words in held_out]
    lengths = [len(words) for words in held_out]
    loss_sums, pair_counts = skip_gram_losses(vectors, held_out, flags.seed)
    from toolkit.training.checkpoints import save_model

    output_dir = run.create_output_dir()
    save_model(output_dir, model, tokenizer)
    (output_dir / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    return write_record(
        run,
        model,
        dataset=run.arguments.text.corpus,
        modality="text",
        metrics={
            "loss": ratio_interval(loss_sums, pair_counts),
            "known_words": ratio_interval(known, lengths),
        },
        n=sum(lengths),
        seed=flags.seed,
        num_steps=num_epochs,
        training_seconds=seconds,
        throughput=sentences.words.num_words * num_epochs / seconds,
        throughput_unit="words/s",
        deterministic=flags.workers == 1 and flags.max_minutes is None,
    )


def _write_sentences(run: Run, corpus: SplitCorpus, space: Callable, folder: Path) -> Sentences:
    cleaning, workers = run.arguments.cleaning, run.arguments.training.workers
    max_words = words_that_fit(cleaning.memory_gb)
    sentences = write_corpus(corpus.train, space, folder / "sentences.txt", cleaning.num_proc or workers, max_words)
    run.say(*sentences.words.left_out())
    run.say(f"training on {sentences.words.num_words:,} words with {workers} workers")
    if run.has_launcher and run.accelerator.num_processes > 1:
        run.say("these are threads of the main process; gensim has no use for the other processes")
    return sentences


METHOD = Method(Word2VecArguments, pretrain_word2vec)
