"""Pretrain an encoder on a corpus: source, tokenizer, preset, objective and training put together.

`PRETRAINING` maps each method to its flags and its function. Importing this module loads no torch.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.data.text import hold_out, load_text, spread
from toolkit.errors import InputError
from toolkit.training_arguments import TrainingArguments

OUTPUT_WORDS = "output_words"  # the tokenizer of the words that an ELMo predicts, in its folder


@dataclass(kw_only=True)
class CorpusArguments:
    corpus: str
    """Text: a file, folder or glob of .txt, .jsonl, .csv or .parquet (also .gz), a Hub id, or 'sample'."""
    output_dir: str
    """Folder for the checkpoint, results.json and train_log.jsonl."""
    split: str | None = None
    """Split of a folder or Hub data set (default: train)."""
    text_column: str | None = None
    """Column of a table that holds the text (default: text, sentence, content or document)."""
    validation_corpus: str | None = None
    """Held-out text; by default the last part of the corpus, which is then not trained on."""
    validation_fraction: float = 0.01
    """Share of the lines to hold out where there is no --validation_corpus."""
    tokenizer: str | None = None
    """Folder or Hub id of a tokenizer; by default one is trained on the corpus."""
    vocab_size: int | None = None
    """Largest size of a vocabulary trained here (default: the preset's)."""
    do_lower_case: bool = False
    """Lower-case the text, for a tokenizer trained here."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""

    def __post_init__(self):
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"--validation_fraction {self.validation_fraction}: expected a share between 0 and 1")
        if self.vocab_size is not None and self.vocab_size <= 0:
            raise InputError(f"--vocab_size {self.vocab_size}: expected a number greater than zero")


@dataclass(kw_only=True)
class Word2VecArguments(CorpusArguments):
    preset: str = "word2vec-mini"
    """Size of the vectors: word2vec-tiny, -mini, -small or -base."""
    num_train_epochs: int = 5
    """Passes over the corpus."""
    max_minutes: float | None = None
    """End after the first epoch that ends later than this."""
    learning_rate: float = 0.025
    """Learning rate at the start; it falls linearly to almost zero."""
    window: int = 5
    """Words to each side that are predicted."""
    negative: int = 5
    """Random words that each neighbour is compared with."""
    min_count: int = 5
    """Leave out words that occur fewer times."""
    workers: int = 2
    """gensim's threads; with one the vectors are the same each time."""
    seed: int = 0
    """Seed of the initial vectors."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_train_epochs", "max_minutes", "learning_rate", "window", "negative", "min_count", "workers"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"--{name} {value}: expected a number greater than zero")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: expected zero or more")


@dataclass(kw_only=True)
class FastTextArguments(Word2VecArguments):
    preset: str = "fasttext-mini"
    """Size of the vectors: fasttext-tiny, -mini, -small or -base."""
    num_buckets: int | None = None
    """Vectors of n-grams, which share them by their hashes (default: the preset's)."""
    min_n: int = 3
    """Characters of the shortest n-gram, with the brackets that stand around a word."""
    max_n: int = 6
    """Characters of the longest n-gram."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_buckets", "min_n"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"--{name} {value}: expected a number greater than zero")
        if self.max_n < self.min_n:
            raise InputError(f"--max_n {self.max_n}: expected at least --min_n {self.min_n}")


@dataclass(kw_only=True)
class ElmoArguments(TrainingArguments, CorpusArguments):
    preset: str = "elmo-mini"
    """Size of the encoder: elmo-tiny, -mini, -small or -base."""
    batch_size: int = 64
    """Windows an optimiser step, over all processes and accumulation steps together."""
    max_length: int = 32
    """Words of a window."""
    num_negatives: int = 2048
    """Random words that each predicted word competes with while training."""
    consecutive_windows: int = 1
    """Windows that are read one after the other, the state of the LSTM carried from each to the next, of both
    directions by turns; 1 carries nothing."""
    learning_rate: float = 3e-3
    """Peak learning rate."""

    def __post_init__(self):
        TrainingArguments.__post_init__(self)
        CorpusArguments.__post_init__(self)
        _check(self, 3)
        for name in ("num_negatives", "consecutive_windows"):
            if getattr(self, name) <= 0:
                raise InputError(f"--{name} {getattr(self, name)}: expected a number greater than zero")


@dataclass(kw_only=True)
class BertArguments(TrainingArguments, CorpusArguments):
    preset: str = "bert-mini"
    """Size of the encoder: bert-tiny, -mini, -small or -base."""
    max_length: int = 128
    """Tokens of a window."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    dropout: float = 0.0
    """Dropout while pretraining; the checkpoint keeps BERT's usual 0.1 for fine-tuning."""
    packing: Literal["none", "lines"] = "none"
    """How lines fill windows: joined and cut (none), or whole, each read as if it stood alone (lines). Held-out losses
    of the two do not compare."""
    mlm_probability: float = 0.15
    """Share of the tokens that are masked while training; held-out text is always masked at 0.15."""
    mlm_probability_end: float | None = None
    """The same at the end of the run; it changes linearly (default: it does not)."""
    whole_word_mask: bool = False
    """Mask all pieces of a word or none while training."""
    embeddings: Literal["random", "word2vec"] = "random"
    """What the embeddings of tokens start from: word2vec learns them from the corpus first, in seconds."""
    output_bias: Literal["zeros", "frequencies"] = "zeros"
    """What the bias of the output layer starts from: 'frequencies' guesses each token as often as it occurs."""

    def __post_init__(self):
        TrainingArguments.__post_init__(self)
        CorpusArguments.__post_init__(self)
        _check(self, 8)
        for name in ("mlm_probability", "mlm_probability_end"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"--{name} {value}: expected a share between 0 and 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout {self.dropout}: expected a share from 0 to below 1")


@dataclass(kw_only=True)
class ElectraArguments(BertArguments):
    preset: str = "electra-mini"
    """Size of the encoder: electra-tiny, -mini, -small or -base."""
    generator_size: float | None = None
    """Width of the generator, which fills in what the encoder looks for, as a share of the encoder's (default: the
    preset's, a quarter to a half)."""
    discriminator_weight: float = 50.0
    """What a token counts for that the encoder judges, beside a masked one that the generator guesses."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("generator_size", "discriminator_weight"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"--{name} {value}: expected a number greater than zero")


def _check(arguments: Any, shortest: int) -> None:
    if arguments.max_length < shortest:
        raise InputError(f"--max_length {arguments.max_length}: expected at least {shortest}")
    if arguments.max_steps is None and arguments.max_minutes is None and arguments.num_train_epochs is None:
        arguments.num_train_epochs = 1.0


def pretrain(method: str, **flags: Any) -> dict[str, Any]:
    """Pretrain `word2vec`, `fasttext`, `elmo`, `bert` or `electra`; `flags` as in `toolkit pretrain METHOD --help`.

    Leaves the checkpoint in `output_dir` and returns the record that stands in its `results.json`; with `resume` that
    of a run which stands there finished.
    """
    if method not in PRETRAINING:
        raise InputError(f"unknown method '{method}', expected one of {', '.join(PRETRAINING)}")
    return run(method, PRETRAINING[method][0](**flags))


def run(method: str, arguments: Any) -> dict[str, Any]:
    """The same, from the dataclass of the flags."""
    from toolkit.results import finished_run

    if hasattr(arguments, "resume") and (record := finished_run(arguments)) is not None:
        return record
    return PRETRAINING[method][1](arguments)


def pretrain_word2vec(arguments: Word2VecArguments) -> dict[str, Any]:
    """gensim trains the vectors; they become a `Word2VecModel`."""
    from toolkit.models.word2vec import Word2VecModel
    from toolkit.tokenization import (
        bert_normalizer,
        load_tokenizer,
        token_splitter,
        word_level_tokenizer,
        word_splitter,
    )

    run = _Run("word2vec", arguments)
    given, split = None, word_splitter(bert_normalizer(arguments.do_lower_case))
    if arguments.tokenizer is not None:
        given = load_tokenizer(arguments.tokenizer)
        split = token_splitter(given)

    def export(word_vectors) -> tuple[Any, Any]:
        tokenizer = given or word_level_tokenizer(word_vectors.index_to_key, arguments.do_lower_case)
        config = run.preset.config(len(tokenizer))
        return Word2VecModel.from_word_vectors(config, word_vectors, tokenizer.get_vocab()), tokenizer

    return run.train_word_vectors(split, export)


def pretrain_fasttext(arguments: FastTextArguments) -> dict[str, Any]:
    """gensim trains vectors of words and of n-grams; they become a `FastTextModel`."""
    from tokenizers.normalizers import BertNormalizer

    from toolkit.models.fasttext import FastTextModel
    from toolkit.tokenization import with_whole_words, word_splitter

    run = _Run("fasttext", arguments)
    byte_tokenizer = run.byte_tokenizer("a fastText")
    normalizer = byte_tokenizer.backend_tokenizer.normalizer
    if not isinstance(normalizer, BertNormalizer):
        raise InputError(
            f"--tokenizer {arguments.tokenizer}: has the normalizer {type(normalizer).__name__}, "
            "expected BertNormalizer; make one with: toolkit tokenizer --kind bytes"
        )
    settings = {
        "num_buckets": arguments.num_buckets or run.preset.config(1).num_buckets,
        "min_n": arguments.min_n,
        "max_n": arguments.max_n,
    }

    def export(word_vectors) -> tuple[Any, Any]:
        tokenizer, ids = with_whole_words(byte_tokenizer, word_vectors.index_to_key)
        config = run.preset.config(len(tokenizer))
        config.update(settings)
        return FastTextModel.from_word_vectors(config, word_vectors, ids), tokenizer

    ngrams = {"bucket": settings["num_buckets"], "min_n": arguments.min_n, "max_n": arguments.max_n}
    return run.train_word_vectors(word_splitter(normalizer), export, ngrams)


def pretrain_elmo(arguments: ElmoArguments) -> dict[str, Any]:
    """Words as bytes in, a two-way language model over the `vocab_size` most frequent words."""
    from toolkit.models.elmo import ElmoForPreTraining
    from toolkit.objectives import two_way_lm
    from toolkit.tokenization import train_tokenizer

    run = _Run("elmo", arguments)
    tokenizer = run.byte_tokenizer("an ELMo")
    run.say("counting words")
    words = train_tokenizer(
        run.train_rows["text"],
        "word",
        arguments.vocab_size or run.preset.vocab_size,
        normalizer=tokenizer.backend_tokenizer.normalizer,
    )
    rows = run.prepare(lambda rows: two_way_lm.windows(rows, tokenizer, words, arguments.max_length))
    exact = two_way_lm.PredictNeighbours(tokenizer.pad_token_id, words.sep_token_id, len(words), arguments.seed)
    consecutive = arguments.consecutive_windows
    sampled = dataclasses.replace(exact, num_negatives=arguments.num_negatives, consecutive=consecutive)
    run.check_that_states_fit(consecutive, len(rows[0]))
    config = run.preset.config(len(words))
    model = run.new_model(ElmoForPreTraining, config)
    output_dir = run.create_output_dir()
    if run.is_main:
        words.save_pretrained(output_dir / OUTPUT_WORDS)
    return run.train(model, tokenizer, *rows, sampled, exact, item="word", consecutive=consecutive)


def pretrain_bert(arguments: BertArguments) -> dict[str, Any]:
    """A masked language model over pieces of words."""
    from toolkit.models.bert import BertForMaskedLM
    from toolkit.objectives.masked_lm import MaskTokens

    run = _Run("bert", arguments)
    return run.train_to_fill_in("a BERT", BertForMaskedLM, MaskTokens)


def pretrain_electra(arguments: ElectraArguments) -> dict[str, Any]:
    """An encoder that tells the tokens of a text from those that a small masked language model has put there."""
    from toolkit.models.electra import ElectraForPreTraining
    from toolkit.objectives.replaced_token import ReplaceTokens

    run = _Run("electra", arguments)
    settings = {"discriminator_weight": arguments.discriminator_weight}
    if arguments.generator_size is not None:
        settings["generator_size"] = arguments.generator_size
    # As the generator learns, the encoder's task becomes harder: the sum of their losses tells no best weights.
    return run.train_to_fill_in(
        "an ELECTRA",
        ElectraForPreTraining,
        ReplaceTokens,
        settings,
        better=None,
        result=ElectraForPreTraining.without_generator,
    )


PRETRAINING: dict[str, tuple[type, Callable]] = {
    "word2vec": (Word2VecArguments, pretrain_word2vec),
    "fasttext": (FastTextArguments, pretrain_fasttext),
    "elmo": (ElmoArguments, pretrain_elmo),
    "bert": (BertArguments, pretrain_bert),
    "electra": (ElectraArguments, pretrain_electra),
}


class _Run:
    """What the methods share: source, output folder, training and the record."""

    VALIDATION_WINDOWS = 256  # looked at in between; the figure in results.json is of up to eight times as many
    VALIDATION_BATCH_SIZE = 16

    def __init__(self, method: str, arguments: Any):
        from toolkit.presets import get_preset
        from toolkit.processes import make_accelerator
        from toolkit.results import Stopwatch, check_output_dir

        self.method, self.arguments = method, arguments
        self.preset = get_preset(arguments.preset, method)
        self.resume = getattr(arguments, "resume", False)
        check_output_dir(arguments.output_dir, self.resume, arguments.overwrite_output_dir)
        self.accelerator = make_accelerator()
        self.is_main = self.accelerator.is_main_process
        self.stopwatch = Stopwatch()
        with self.accelerator.main_process_first():  # the others find what it prepared in the cache
            self.train_rows = load_text(arguments.corpus, arguments.split, arguments.text_column)
            if arguments.validation_corpus is not None:
                self.validation_rows = load_text(arguments.validation_corpus, "validation", arguments.text_column)
            else:
                self.train_rows, self.validation_rows = hold_out(self.train_rows, arguments.validation_fraction)

    @property
    def starts_anew(self) -> bool:
        """Whether the weights that training starts from are not those of a checkpoint."""
        from toolkit.checkpoint import list_checkpoints

        return not (self.resume and list_checkpoints(Path(self.arguments.output_dir)))

    def say(self, message: str) -> None:
        if self.is_main:
            print(f"{self.method}: {message}", file=sys.stderr, flush=True)

    def create_output_dir(self) -> Path:
        from toolkit.results import create_output_dir

        if self.is_main:
            create_output_dir(self.arguments.output_dir, self.arguments.overwrite_output_dir and not self.resume)
        return Path(self.arguments.output_dir)

    def check_that_states_fit(self, consecutive: int, num_windows: int) -> None:
        """Raises `InputError` where the states after one step's windows cannot begin those of the next."""
        if num_windows < consecutive:
            raise InputError(f"--consecutive_windows {consecutive}: the text to train on fills only {num_windows:,}")
        batch_size = self.arguments.batch_size
        num_shares = self.accelerator.num_processes * self.arguments.gradient_accumulation_steps
        if consecutive > 1 and batch_size % num_shares:
            raise InputError(
                f"--batch_size {batch_size}: expected a multiple of {num_shares}, processes times accumulation steps, "
                "where --consecutive_windows carry a state"
            )

    def byte_tokenizer(self, reader: str):
        """One that spells words, for `reader`: that of `--tokenizer`, or a new one."""
        from toolkit.tokenization import is_byte_level, load_tokenizer, train_tokenizer

        name = self.arguments.tokenizer
        if name is None:
            return train_tokenizer((), "bytes", do_lower_case=self.arguments.do_lower_case)
        tokenizer = load_tokenizer(name)
        if not is_byte_level(tokenizer):
            raise InputError(
                f"--tokenizer {name}: does not fit {reader}, which reads bytes of words; "
                "make one with: toolkit tokenizer --kind bytes"
            )
        return tokenizer

    def train_to_fill_in(
        self, reader: str, model_class, collate_class, settings: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Train `reader`, a model of pieces of words of which some are masked; `settings` go into its configuration,
        `options` to `train`."""
        import torch

        from toolkit.objectives import masked_lm
        from toolkit.objectives.skip_gram import train_token_vectors

        arguments, tokenizer = self.arguments, self.piece_tokenizer(reader)
        special = tokenizer.all_special_ids
        config = self.preset.config(len(tokenizer))
        config.update(settings or {})
        if arguments.max_length > config.max_position_embeddings:
            raise InputError(
                f"--max_length {arguments.max_length}: "
                f"{arguments.preset} has {config.max_position_embeddings} positions"
            )
        tokenizer.model_max_length = arguments.max_length  # positions after it are never trained
        continues = masked_lm.continuing_tokens(tokenizer) if arguments.whole_word_mask else None
        rows = self.prepare(lambda rows: masked_lm.windows(rows, tokenizer, arguments.max_length, arguments.packing))
        exact = collate_class(
            tokenizer.pad_token_id,
            tokenizer.mask_token_id,
            special,
            len(tokenizer),
            arguments.seed,
            cls_token_id=tokenizer.cls_token_id if arguments.packing == "lines" else None,
        )
        start, end = arguments.mlm_probability, arguments.mlm_probability_end
        collate = dataclasses.replace(exact, shares=(start, start if end is None else end), continues=continues)
        model = self.new_model(model_class, config)
        model.set_dropout(arguments.dropout)
        if self.starts_anew and arguments.output_bias == "frequencies":
            counts = masked_lm.count_tokens(rows[0], len(tokenizer))
            counts[special] = 0  # never a target
            model.set_output_bias(torch.from_numpy(counts))
        if self.starts_anew and arguments.embeddings == "word2vec":
            self.say("learning embeddings with word2vec")
            width = model.get_input_embeddings().embedding_dim
            vectors = train_token_vectors(rows[0], special, width, arguments.seed)
            model.set_word_embeddings(*map(torch.from_numpy, vectors))
        self.create_output_dir()
        return self.train(model, tokenizer, *rows, collate, exact, item="token", **options)

    def piece_tokenizer(self, reader: str):
        """One of pieces of words with a [MASK], for `reader`: that of `--tokenizer`, or a WordPiece made here."""
        from toolkit.tokenization import load_tokenizer, spells_words, train_tokenizer

        arguments = self.arguments
        if arguments.tokenizer is None:
            self.say("training a WordPiece tokenizer")
            vocab_size = arguments.vocab_size or self.preset.vocab_size
            texts = self.train_rows["text"]
            return train_tokenizer(texts, "wordpiece", vocab_size, do_lower_case=arguments.do_lower_case)
        tokenizer = load_tokenizer(arguments.tokenizer)
        if tokenizer.mask_token_id is None or spells_words(tokenizer):
            raise InputError(
                f"--tokenizer {arguments.tokenizer}: does not fit {reader}, which needs pieces of words and a [MASK]; "
                "make one with: toolkit tokenizer --kind wordpiece"
            )
        return tokenizer

    def train_word_vectors(
        self, split: Callable, export: Callable, ngrams: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """Let gensim train on the main process, in threads; score its vectors on held-out text, return the record.

        `split` gives the words of each of a list of texts, `export` a model and a tokenizer from gensim's vectors.
        """
        import tempfile

        from toolkit.checkpoint import save_model
        from toolkit.intervals import ratio_interval
        from toolkit.objectives.skip_gram import held_out_losses, train_word_vectors, write_sentences
        from toolkit.results import LOG_FILE

        if not self.is_main:
            return {}
        arguments, log = self.arguments, []

        def words_of(rows) -> Iterator[list[str]]:
            for batch in rows.iter(batch_size=1000):
                yield from split(batch["text"])

        with tempfile.TemporaryDirectory() as folder:
            sentences = write_sentences(words_of(self.train_rows), Path(folder) / "sentences.txt")
            num_words = sentences.num_words
            self.say(f"training on {num_words:,} words with {arguments.workers} workers")
            if self.accelerator.num_processes > 1:
                self.say("these are threads of the main process; gensim has no use for the other processes")
            start = self.stopwatch.seconds

            def on_epoch_end(num_epochs: int, seconds: float) -> None:
                speed = num_words * num_epochs / seconds
                log.append({"step": num_epochs, "epoch": num_epochs, "seconds": seconds, "words_per_second": speed})
                self.say(f"epoch {num_epochs} of {arguments.num_train_epochs}, {speed:,.0f} words/s")

            vectors, num_epochs = train_word_vectors(
                sentences,
                vector_size=self.preset.config(1).hidden_size,
                window=arguments.window,
                negative=arguments.negative,
                min_count=arguments.min_count,
                max_final_vocab=arguments.vocab_size or self.preset.vocab_size,
                epochs=arguments.num_train_epochs,
                alpha=arguments.learning_rate,
                workers=arguments.workers,
                seed=arguments.seed,
                ngrams=ngrams,
                max_minutes=arguments.max_minutes,
                on_epoch_end=on_epoch_end,
            )
            seconds = self.stopwatch.seconds - start
        model, tokenizer = export(vectors.wv)
        lines = [words for words in words_of(spread(self.validation_rows, 8 * self.VALIDATION_WINDOWS)) if words]
        lengths = [len(words) for words in lines]
        known = [sum(word in vectors.wv.key_to_index for word in words) for words in lines]
        loss_sums, pair_counts = held_out_losses(vectors, lines, arguments.seed)
        output_dir = self.create_output_dir()
        save_model(output_dir, model, tokenizer)
        (output_dir / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
        return self.write(
            model,
            metrics={
                "loss": ratio_interval(loss_sums, pair_counts),
                "known_words": ratio_interval(known, lengths),
            },
            n=sum(lengths),
            num_steps=num_epochs,
            training_seconds=seconds,
            throughput=num_words * num_epochs / seconds,
            throughput_unit="words/s",
            deterministic=arguments.workers == 1 and arguments.max_minutes is None,
        )

    def prepare(self, windows: Callable) -> tuple[Any, Any]:
        """`windows` of the training and of the held-out text, made once by the main process."""
        self.say("tokenizing")
        with self.accelerator.main_process_first():
            train_rows, validation_rows = windows(self.train_rows), windows(self.validation_rows)
        for rows, what in ((train_rows, "text to train on"), (validation_rows, "held-out text")):
            if len(rows) == 0:
                raise InputError(f"the {what} has no word that the tokenizer knows; give more, or --validation_corpus")
        return train_rows, spread(validation_rows, 8 * self.VALIDATION_WINDOWS)

    def new_model(self, model_class, config):
        """A model with random weights, of the seed."""
        import torch

        torch.manual_seed(self.arguments.seed)
        return model_class(config)

    def train(
        self,
        model,
        tokenizer,
        train_rows,
        validation_rows,
        collate,
        exact_collate,
        item: str,
        better: str | None = "loss",
        consecutive: int = 1,
        result: Callable | None = None,
    ) -> dict[str, Any]:
        """Train `model`, score the best weights, or the last, on the held-out text, return the record.

        `item`, `better` and `consecutive` are those of `toolkit.training.train`; `result` gives what of the model
        stays in the folder.
        """
        from toolkit.checkpoint import save_model
        from toolkit.evaluation import held_out_losses
        from toolkit.intervals import ratio_interval
        from toolkit.training import train

        def losses(model, rows, accelerator):
            return held_out_losses(model, rows, exact_collate, self.VALIDATION_BATCH_SIZE, accelerator)

        def evaluate(accelerator) -> dict[str, float]:
            sums, counts = losses(model, spread(validation_rows, self.VALIDATION_WINDOWS), accelerator)
            return {"loss": float(sums.sum() / counts.sum())}

        output_dir = Path(self.arguments.output_dir)
        self.say(
            f"training {self.arguments.preset}, {model.num_parameters():,} parameters, {len(train_rows):,} windows"
        )
        training = train(
            model,
            train_rows,
            collate,
            self.arguments,
            output_dir,
            tokenizer=tokenizer,
            evaluate=evaluate,
            better=better,
            item=item,
            consecutive=consecutive,
        )
        model = type(model).from_pretrained(output_dir).to(self.accelerator.device).eval()
        sums, counts = losses(model, validation_rows, self.accelerator)
        if result is not None:
            model = result(model)
            save_model(output_dir, model, tokenizer, writes=self.is_main)
        return self.write(
            model,
            metrics={"loss": ratio_interval(sums, counts)},
            n=int(counts.sum()),
            num_steps=training.num_steps,
            training_seconds=training.seconds,
            throughput=training.throughput,
            throughput_unit=f"{item}s/s",
            deterministic=training.deterministic,
        )

    def write(self, model, **fields: Any) -> dict[str, Any]:
        from toolkit.results import RESULTS_FILE, write_results

        record = {
            "task": "pretraining",
            "dataset": self.arguments.corpus,
            "split": "validation",
            "encoder": self.arguments.preset,
            "seed": self.arguments.seed,
            "parameters": model.num_parameters(),
            "arguments": dataclasses.asdict(self.arguments),
            **fields,
        }
        if self.is_main:
            record = write_results(Path(self.arguments.output_dir) / RESULTS_FILE, self.stopwatch, **record)
        return record
