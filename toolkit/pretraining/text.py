"""Pretraining on text: word2vec, fastText, ELMo, BERT and ELECTRA."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolkit.data.rows import hold_out, spread
from toolkit.data.text import load_text
from toolkit.errors import InputError
from toolkit.pretraining.arguments import (
    BertArguments,
    ElectraArguments,
    ElmoArguments,
    FastTextArguments,
    Word2VecArguments,
)
from toolkit.pretraining.base import Run

LINES_A_PART = 20_000  # of text that word2vec and fastText read, at least, for a process to split it into words
OUTPUT_WORDS = "output_words"  # the tokenizer of the words that an ELMo predicts, in its folder


def pretrain_word2vec(arguments: Word2VecArguments) -> dict[str, Any]:
    """gensim trains the vectors; they become a `Word2VecModel`."""
    from toolkit.tokenization import (
        bert_normalizer,
        load_tokenizer,
        token_spacer,
        word_level_tokenizer,
        word_spacer,
    )

    run = TextRun("word2vec", arguments)
    given, space = None, word_spacer(bert_normalizer(arguments.do_lower_case))
    if arguments.tokenizer is not None:
        given = load_tokenizer(arguments.tokenizer)
        space = token_spacer(given)

    def export(word_vectors) -> tuple[Any, Any]:
        from toolkit.models.word2vec import Word2VecModel

        tokenizer = given or word_level_tokenizer(word_vectors.index_to_key, arguments.do_lower_case)
        config = run.preset.config(len(tokenizer))
        return Word2VecModel.from_word_vectors(config, word_vectors, tokenizer.get_vocab()), tokenizer

    return run.train_word_vectors(space, export)


def pretrain_fasttext(arguments: FastTextArguments) -> dict[str, Any]:
    """gensim trains vectors of words and of n-grams; they become a `FastTextModel`."""
    from tokenizers.normalizers import BertNormalizer

    from toolkit.tokenization import with_whole_words, word_spacer

    run = TextRun("fasttext", arguments)
    byte_tokenizer = run.byte_tokenizer("a fastText")
    normalizer = byte_tokenizer.backend_tokenizer.normalizer
    if not isinstance(normalizer, BertNormalizer):
        raise InputError(
            f"--tokenizer {arguments.tokenizer}: has the normalizer {type(normalizer).__name__}, "
            "expected BertNormalizer; make one with: toolkit tokenizer --kind bytes"
        )
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
    return run.train_word_vectors(word_spacer(normalizer), export, ngrams)


def pretrain_elmo(arguments: ElmoArguments) -> dict[str, Any]:
    """Words as bytes in, a two-way language model over the `vocab_size` most frequent words."""
    from toolkit.models.elmo import ElmoForPreTraining
    from toolkit.objectives import two_way_lm
    from toolkit.tokenization import train_tokenizer

    run = TextRun("elmo", arguments)
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

    run = TextRun("bert", arguments)
    return run.train_to_fill_in("a BERT", BertForMaskedLM, MaskTokens)


def pretrain_electra(arguments: ElectraArguments) -> dict[str, Any]:
    """An encoder that tells the tokens of a text from those that a small masked language model has put there."""
    from toolkit.models.electra import ElectraForPreTraining
    from toolkit.objectives.replaced_token import ReplaceTokens

    run = TextRun("electra", arguments)
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


class TextRun(Run):
    """What these methods share: the corpus, tokenizers, windows of text."""

    def __init__(self, method: str, arguments: Any):
        from toolkit.presets import get_preset

        preset = get_preset(arguments.preset, method)
        super().__init__(method, arguments)
        self.preset = preset
        with self.main_process_first():  # the others find what it prepared in the cache
            self.train_rows = load_text(arguments.corpus, arguments.split, arguments.text_column)
            if arguments.validation_corpus is not None:
                self.validation_rows = load_text(arguments.validation_corpus, "validation", arguments.text_column)
            else:
                self.train_rows, self.validation_rows = hold_out(self.train_rows, arguments.validation_fraction)

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
        from toolkit.objectives import masked_lm

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
        if self.starts_anew:
            self.set_first_weights(model, rows[0], special)
        self.create_output_dir()
        return self.train(model, tokenizer, *rows, collate, exact, item="token", **options)

    def set_first_weights(self, model, rows, special_ids: list[int]) -> None:
        """What training starts from where it is not random: attention, the bias of the output layer, embeddings."""
        import torch

        from toolkit.objectives.masked_lm import count_tokens
        from toolkit.objectives.skip_gram import train_token_vectors

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
        self, space: Callable, export: Callable, ngrams: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """Let gensim train on the main process, in threads; score its vectors on held-out text, return the record.

        `space` puts spaces between the words of each of a list of texts, `export` makes a model and a tokenizer of
        gensim's vectors.
        """
        import tempfile
        from concurrent.futures import ThreadPoolExecutor
        from importlib import import_module

        from toolkit.intervals import ratio_interval
        from toolkit.objectives.skip_gram import held_out_losses, train_word_vectors, write_parts
        from toolkit.results import LOG_FILE

        if not self.is_main:
            return {}
        arguments, log = self.arguments, []

        def spaced(rows) -> Iterator[list[str]]:
            return (space(batch["text"]) for batch in rows.iter(batch_size=1000))

        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as meanwhile:
            num_parts = min(arguments.workers, 1 + len(self.train_rows) // LINES_A_PART)
            parts = [spaced(self.train_rows.shard(num_parts, i, contiguous=True)) for i in range(num_parts)]
            sentences = write_parts(parts, Path(folder) / "sentences.txt")
            num_words = sentences.num_words
            self.say(f"training on {num_words:,} words with {arguments.workers} workers")
            if self.has_launcher and self.accelerator.num_processes > 1:
                self.say("these are threads of the main process; gensim has no use for the other processes")
            start = self.stopwatch.seconds
            for name in (f"toolkit.models.{self.method}", "toolkit.checkpoint"):  # they load torch, in seconds
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
        batches = spaced(spread(self.validation_rows, 8 * self.VALIDATION_ROWS))
        lines = [words for batch in batches for line in batch if (words := line.split())]
        lengths = [len(words) for words in lines]
        known = [sum(word in vectors.wv.key_to_index for word in words) for words in lines]
        loss_sums, pair_counts = held_out_losses(vectors, lines, arguments.seed)
        from toolkit.checkpoint import save_model  # here, where it is loaded already

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
        with self.main_process_first():
            train_rows, validation_rows = windows(self.train_rows), windows(self.validation_rows)
        for rows, what in ((train_rows, "text to train on"), (validation_rows, "held-out text")):
            if len(rows) == 0:
                raise InputError(f"the {what} has no word that the tokenizer knows; give more, or --validation_corpus")
        return train_rows, spread(validation_rows, 8 * self.VALIDATION_ROWS)

    def new_model(self, model_class, config):
        """A model with random weights, of the seed."""
        import torch

        torch.manual_seed(self.arguments.seed)
        return model_class(config)
