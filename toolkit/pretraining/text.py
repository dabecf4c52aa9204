"""Pretraining on text: word2vec, fastText, ELMo, BERT and ELECTRA."""

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from toolkit.corpora.corpus import Corpus, cache_folder, digest, locked, open_corpus_of
from toolkit.corpora.prepared import WHOLE, Recipe, Shard, notes_of, open_prepared, prepare
from toolkit.corpora.windows import PieceWindows, WordWindows
from toolkit.data.rows import spread
from toolkit.errors import InputError, readable
from toolkit.pretraining.arguments import (
    BertArguments,
    ElectraArguments,
    ElmoArguments,
    EncodedTextArguments,
    FastTextArguments,
    Word2VecArguments,
)
from toolkit.pretraining.run import Run
from toolkit.reports.progress import Parts

OUTPUT_WORDS = "output_words"  # the tokenizer of the words that an ELMo predicts, in its folder
PREPARED_FILE, TOKENIZER = "prepared.json", "tokenizer"  # in a folder of `toolkit prepare`
WINDOWS = {"bert": "pieces", "electra": "pieces", "elmo": "words"}


def pretrain_word2vec(arguments: Word2VecArguments) -> dict[str, Any]:
    """gensim trains the vectors; they become a `Word2VecModel`."""
    from toolkit.corpora.tokenization import (
        bert_normalizer,
        load_tokenizer,
        token_spacer,
        word_level_tokenizer,
        word_spacer,
    )

    run = TextRun("word2vec", arguments)
    given, normalizer = None, bert_normalizer(arguments.do_lower_case)
    space = word_spacer(normalizer)
    if arguments.tokenizer is not None:
        given = load_tokenizer(arguments.tokenizer)
        space = token_spacer(given)

    def export(word_vectors) -> tuple[Any, Any]:
        from toolkit.models.word2vec import Word2VecModel

        tokenizer = given or word_level_tokenizer(word_vectors.index_to_key, normalizer)
        config = run.preset.config(len(tokenizer))
        return Word2VecModel.from_word_vectors(config, word_vectors, tokenizer.get_vocab()), tokenizer

    return run.train_word_vectors(space, export)


def pretrain_fasttext(arguments: FastTextArguments) -> dict[str, Any]:
    """gensim trains vectors of words and of n-grams; they become a `FastTextModel`."""
    from toolkit.corpora.tokenization import with_whole_words, word_spacer

    run = TextRun("fasttext", arguments)
    byte_tokenizer = run.byte_tokenizer("a fastText")
    settings = {
        "num_buckets": arguments.num_buckets or run.preset.sizes[1],
        "min_n": arguments.min_n,
        "max_n": arguments.max_n,
    }

    def export(word_vectors) -> tuple[Any, Any]:
        from toolkit.models.fasttext import FastTextModel

        tokenizer, ids = with_whole_words(byte_tokenizer, word_vectors.index_to_key)
        config = run.preset.config(len(tokenizer))
        config.update(settings)
        return FastTextModel.from_word_vectors(config, word_vectors, ids), tokenizer

    ngrams = {"bucket": settings["num_buckets"], "min_n": arguments.min_n, "max_n": arguments.max_n}
    return run.train_word_vectors(word_spacer(byte_tokenizer.backend_tokenizer.normalizer), export, ngrams)


def pretrain_elmo(arguments: ElmoArguments) -> dict[str, Any]:
    """Words as bytes in, a two-way language model over the `vocab_size` most frequent words."""
    run = TextRun("elmo", arguments)
    tokenizer, words, rows = run.windows_of_words("an ELMo")

    from toolkit.models.elmo import ElmoForPreTraining
    from toolkit.pretraining.two_way_lm import PredictNeighbours

    exact = PredictNeighbours(tokenizer.pad_token_id, words.sep_token_id, len(words), arguments.seed)
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
    run = TextRun("bert", arguments)
    tokenizer, rows = run.windows_of_pieces("a BERT", arguments.whole_word_mask)

    from toolkit.models.bert import BertForMaskedLM
    from toolkit.pretraining.masked_lm import MaskTokens

    return run.train_to_fill_in(tokenizer, rows, BertForMaskedLM, MaskTokens)


def pretrain_electra(arguments: ElectraArguments) -> dict[str, Any]:
    """An encoder that tells the tokens of a text from those that a small masked language model has put there."""
    run = TextRun("electra", arguments)
    tokenizer, rows = run.windows_of_pieces("an ELECTRA", arguments.whole_word_mask)

    from toolkit.models.electra import ElectraForPreTraining
    from toolkit.pretraining.replaced_token import ReplaceTokens

    settings = {"discriminator_weight": arguments.discriminator_weight}
    if arguments.generator_size is not None:
        settings["generator_size"] = arguments.generator_size
    # As the generator learns, the encoder's task becomes harder: the sum of their losses tells no best weights.
    return run.train_to_fill_in(
        tokenizer,
        rows,
        ElectraForPreTraining,
        ReplaceTokens,
        settings,
        better=None,
        result=ElectraForPreTraining.without_generator,
    )


@dataclasses.dataclass(frozen=True)
class MadeWindows:
    """What `toolkit prepare` leaves: windows to train on and held-out ones, and what they were made with."""

    folder: Path
    settings: dict[str, Any]

    def tokenizer(self, name: str):
        from toolkit.corpora.tokenization import load_tokenizer

        tokenizer = load_tokenizer(self.folder / name)
        if name == TOKENIZER and self.settings["windows"] == "pieces":
            tokenizer.model_max_length = self.settings["max_length"]
        return tokenizer

    def rows(self) -> tuple[Any, Any]:
        return rows_of(self.folder / "train", self.folder / "validation")


def made_windows(method: str, arguments: Any) -> MadeWindows | None:
    """Those in the folder that `--corpus` names; None where it is text. Raises `InputError` where they do not fit."""
    folder = Path(arguments.corpus)
    if not (folder / PREPARED_FILE).is_file():
        return None
    with readable(folder / PREPARED_FILE):
        settings = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8"))
    wanted = {"windows": WINDOWS.get(method, "text")}
    wanted |= {name: getattr(arguments, name) for name in ("max_length", "packing") if hasattr(arguments, name)}
    if wanted["windows"] != settings["windows"]:
        made_for = " and ".join(name for name, windows in WINDOWS.items() if windows == settings["windows"])
        raise InputError(f"--corpus {folder}: was prepared for {made_for}; {method} reads {wanted['windows']}")
    for name, value in wanted.items():
        if settings[name] != value:
            raise InputError(f"--{name} {value}: {folder} was prepared with --{name} {settings[name]}")
    given = {field.name for field in dataclasses.fields(EncodedTextArguments)} - {"corpus", "output_dir"}
    for field in dataclasses.fields(arguments):
        if field.name in given - {"overwrite_output_dir"} and getattr(arguments, field.name) != field.default:
            raise InputError(f"--{field.name}: goes with text; {folder} holds what was made of it")
    return MadeWindows(folder, settings)


def rows_of(train: Path, validation: Path) -> tuple[Any, Any]:
    """Prepared windows, of the held-out ones some. Raises `InputError` where there are none."""
    train_rows, validation_rows = open_prepared(train), open_prepared(validation)
    for rows, what in ((train_rows, "text to train on"), (validation_rows, "held-out text")):
        if len(rows) == 0:
            raise InputError(f"the {what} has no word that the tokenizer knows; give more, or --validation_corpus")
    return train_rows, spread(validation_rows, 8 * Run.VALIDATION_ROWS)


class TextRun(Run):
    """What these methods share: the corpus, tokenizers, windows of text."""

    def __init__(self, method: str, arguments: Any, resume: bool | None = None):
        from toolkit.models.families import get_preset

        preset = get_preset(arguments.preset, method)
        super().__init__(method, arguments, resume)
        self.preset = preset
        self.made = made_windows(method, arguments)
        if self.made is not None:
            return
        with self.main_process_first():  # the others find what it has read remembered
            self.corpus = open_corpus_of(arguments, shows=self.is_main)
            if arguments.validation_corpus is not None:
                self.held_out = open_corpus_of(arguments, arguments.validation_corpus, "validation", self.is_main)
            else:
                self.corpus, self.held_out = self.corpus.hold_out(arguments.validation_fraction)

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
        from tokenizers.normalizers import BertNormalizer

        from toolkit.corpora.tokenization import is_byte_level, load_tokenizer, train_tokenizer

        name = self.arguments.tokenizer
        if name is None:
            return train_tokenizer((), "bytes", do_lower_case=self.arguments.do_lower_case)
        tokenizer = load_tokenizer(name)
        normalizer = tokenizer.backend_tokenizer.normalizer
        fault = None
        if not is_byte_level(tokenizer):
            fault = f"does not fit {reader}, which reads bytes of words"
        elif not isinstance(normalizer, BertNormalizer):
            fault = f"has the normalizer {type(normalizer).__name__}, expected BertNormalizer"
        if fault is not None:
            raise InputError(f"--tokenizer {name}: {fault}; make one with: toolkit tokenizer --kind bytes")
        return tokenizer

    def windows_of_words(self, reader: str) -> tuple[Any, Any, tuple[Any, Any]]:
        """The tokenizer, that of the words to predict, and the windows of `reader`, which spells words."""
        if self.made is not None:
            of_words = self.made.tokenizer(OUTPUT_WORDS)
            return self.made.tokenizer(TOKENIZER), of_words, self.made.rows()
        tokenizer = self.byte_tokenizer(reader)
        words = self.new_tokenizer("word", tokenizer.backend_tokenizer.normalizer)
        return tokenizer, words, self.prepare(WordWindows(tokenizer, words, self.arguments.max_length))

    def windows_of_pieces(self, reader: str, marks_words: bool = False) -> tuple[Any, tuple[Any, Any]]:
        """The tokenizer and the windows of `reader`, a model of pieces of words of which some are masked.

        With `marks_words` it has to mark the pieces that continue a word, or `InputError` is raised.
        """
        from toolkit.corpora.tokenization import continuing_tokens
        from toolkit.models.families import MAX_POSITIONS

        if self.made is not None:
            return self.made.tokenizer(TOKENIZER), self.made.rows()
        arguments, tokenizer = self.arguments, self.piece_tokenizer(reader)
        if arguments.max_length > MAX_POSITIONS:
            raise InputError(f"--max_length {arguments.max_length}: {arguments.preset} has {MAX_POSITIONS} positions")
        if marks_words:
            continuing_tokens(tokenizer)
        tokenizer.model_max_length = arguments.max_length  # positions after it are never trained
        return tokenizer, self.prepare(PieceWindows(tokenizer, arguments.max_length, arguments.packing))

    def train_to_fill_in(
        self,
        tokenizer,
        rows: tuple[Any, Any],
        model_class,
        collate_class,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Train on windows of pieces; `settings` go into the model's configuration, `options` to `train`."""
        from toolkit.corpora.tokenization import continuing_tokens

        arguments, special = self.arguments, tokenizer.all_special_ids
        config = self.preset.config(len(tokenizer))
        config.update(settings or {})
        continues = continuing_tokens(tokenizer) if arguments.whole_word_mask else None
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
        if self.starts_anew:
            self.set_first_weights(model, rows[0], special)
        self.create_output_dir()
        return self.train(model, tokenizer, *rows, collate, exact, item="token", **options)

    def set_first_weights(self, model, rows, special_ids: list[int]) -> None:
        """What training starts from where it is not random: attention, the bias of the output layer, embeddings."""
        import torch

        from toolkit.pretraining.masked_lm import count_tokens
        from toolkit.pretraining.skip_gram import train_token_vectors

        arguments, embeddings = self.arguments, model.get_input_embeddings()
        if arguments.attention == "neighbours":
            model.look_at_neighbours()
        if arguments.output_bias == "frequencies":
            counts = count_tokens(rows, embeddings.num_embeddings)
            counts[special_ids] = 0  # never a target
            model.set_output_bias(torch.from_numpy(counts))
        if arguments.embeddings == "word2vec":
            self.say("learning embeddings with word2vec")
            vectors = train_token_vectors(rows, special_ids, embeddings.embedding_dim, arguments.seed)
            model.set_word_embeddings(*map(torch.from_numpy, vectors))

    def piece_tokenizer(self, reader: str):
        """One of pieces of words with a [MASK], for `reader`: that of `--tokenizer`, or a WordPiece made here."""
        from toolkit.corpora.tokenization import bert_normalizer, load_tokenizer, spells_words

        arguments = self.arguments
        if arguments.tokenizer is None:
            return self.new_tokenizer("wordpiece", bert_normalizer(arguments.do_lower_case))
        tokenizer = load_tokenizer(arguments.tokenizer)
        if tokenizer.mask_token_id is None or spells_words(tokenizer):
            raise InputError(
                f"--tokenizer {arguments.tokenizer}: does not fit {reader}, which needs pieces of words and a [MASK]; "
                "make one with: toolkit tokenizer --kind wordpiece"
            )
        return tokenizer

    def train_word_vectors(
        self, space: Callable, export: Callable, ngrams: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """Let gensim train on the main process, in threads; score its vectors on held-out text, return the record.

        `space` puts spaces between the words of each of a list of texts, `export` makes a model and a tokenizer of
        gensim's vectors.
        """
        import tempfile
        from concurrent.futures import ThreadPoolExecutor
        from importlib import import_module

        from toolkit.corpora.tokenization import words_that_fit
        from toolkit.metrics.intervals import ratio_interval
        from toolkit.pretraining.skip_gram import held_out_losses, train_word_vectors, write_corpus
        from toolkit.reports.results import LOG_FILE

        if not self.is_main:
            return {}
        arguments, log = self.arguments, []

        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as meanwhile:
            max_words = words_that_fit(arguments.memory_gb)
            num_proc = arguments.num_proc or arguments.workers
            sentences = write_corpus(self.corpus, space, Path(folder) / "sentences.txt", num_proc, max_words)
            self.say_each(sentences.words.left_out())
            num_words = sentences.words.num_words
            self.say(f"training on {num_words:,} words with {arguments.workers} workers")
            if self.has_launcher and self.accelerator.num_processes > 1:
                self.say("these are threads of the main process; gensim has no use for the other processes")
            start = self.stopwatch.seconds
            for name in (
                f"toolkit.models.{self.method}",
                "toolkit.training.checkpoints",
            ):  # torch takes seconds
                meanwhile.submit(import_module, name)

            def on_epoch_end(num_epochs: int, seconds: float) -> None:
                speed = num_words * num_epochs / seconds
                log.append({"step": num_epochs, "epoch": num_epochs, "seconds": seconds, "words_per_second": speed})
                self.say(f"epoch {num_epochs} of {arguments.num_train_epochs}, {speed:,.0f} words/s")

            vectors, num_epochs = train_word_vectors(
                sentences,
                vector_size=self.preset.sizes[0],
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
        held_out = space(self.held_out.spread(8 * self.VALIDATION_ROWS))
        lines = [words for line in held_out if (words := line.split())]
        lengths = [len(words) for words in lines]
        known = [sum(word in vectors.wv.key_to_index for word in words) for words in lines]
        loss_sums, pair_counts = held_out_losses(vectors, lines, arguments.seed)
        from toolkit.training.checkpoints import save_model  # here, where it is loaded already

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

    def prepare(self, recipe: Recipe) -> tuple[Any, Any]:
        """What `recipe` makes of the training and of the held-out text, made once by the main process."""
        with self.main_process_first():
            return rows_of(*(self.make(corpus, recipe) for corpus in (self.corpus, self.held_out)))

    def make(self, corpus: Corpus, recipe: Recipe, folder: Path | None = None, shard: Shard = WHOLE) -> Path:
        progress = Parts("tokenizing", self.is_main)
        folder = prepare(corpus, recipe, folder, self.arguments.num_proc, shard, progress)
        self.say_each(notes_of(folder).lines())
        return folder

    def new_tokenizer(self, kind: Literal["wordpiece", "word"], normalizer):
        """A tokenizer of that kind, of the preset's size, trained on the corpus, or kept from when it was before."""
        from toolkit.corpora.tokenization import load_tokenizer, train_on_corpus

        arguments = self.arguments
        vocab_size = arguments.vocab_size or self.preset.vocab_size
        made_of = (self.corpus.key, kind, normalizer.__getstate__().decode(), vocab_size, arguments.memory_gb)
        folder = cache_folder() / "tokenizers" / digest(*made_of, version("tokenizers"))
        with self.main_process_first(), locked(folder.name):
            if not folder.is_dir():
                progress = Parts("counting words", self.is_main)
                settings = {"memory_gb": arguments.memory_gb, "num_proc": arguments.num_proc, "on_block": progress}
                tokenizer, words = train_on_corpus(self.corpus, kind, normalizer, vocab_size, **settings)
                self.say_each(words.left_out())
                aside = folder.with_suffix(".partial")
                tokenizer.save_pretrained(aside)
                aside.rename(folder)
        return load_tokenizer(folder)

    def say_each(self, lines: list[str]) -> None:
        for line in lines:
            self.say(line)

    def new_model(self, model_class, config):
        """A model with random weights, of the seed."""
        import torch

        torch.manual_seed(self.arguments.seed)
        return model_class(config)
