"""BERT: predict masked tokens from the tokens on both sides.

Devlin, Chang, Lee & Toutanova (2019), "BERT: pre-training of deep bidirectional transformers for language
understanding", https://arxiv.org/abs/1810.04805.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from toolkit.corpora.arguments import Packing
from toolkit.corpora.corpus import Corpus
from toolkit.corpora.tokenization import bert_normalizer, continuing_tokens, load_tokenizer, spells_words
from toolkit.corpora.windows import PieceWindows
from toolkit.errors import InputError, check_between_0_and_1, check_flags, check_share
from toolkit.models.families import MAX_POSITIONS
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run, train_and_record
from toolkit.pretraining.text_corpus import TextPretrainingArguments, load_windows, new_tokenizer
from toolkit.runs.arguments import Arguments, defaults
from toolkit.training.arguments import TrainingArguments
from toolkit.training.sampler import SampleKey

EVAL_MASKED_SHARE = 0.15  # of held-out tokens, whatever the share while training


@dataclass(kw_only=True)
class MaskingArguments(Arguments):
    """objective"""

    mlm_probability: float = 0.3
    """Fraction of tokens masked while training; held-out text is always masked at 0.15."""
    mlm_probability_end: float | None = None
    """Fraction of tokens masked at the end of the run; it changes linearly (default: it does not change)."""
    whole_word_mask: bool = False
    """Mask all pieces of a word or none while training."""

    def check(self) -> None:
        check_between_0_and_1(self, "mlm_probability mlm_probability_end")


@dataclass(kw_only=True)
class InitializationArguments(Arguments):
    """initial weights and dropout"""

    embeddings: Literal["random", "word2vec"] = "word2vec"
    """Initial token embeddings: word2vec trains them on the corpus first, in seconds."""
    attention: Literal["random", "neighbours"] = "neighbours"
    """Initial attention: random, or each head on one of the neighbouring tokens."""
    output_bias: Literal["zeros", "frequencies"] = "zeros"
    """Initial bias of the output layer: zeros, or the logarithms of the token frequencies."""
    dropout: float = 0.0
    """Dropout while pretraining; the checkpoint keeps BERT's usual 0.1 for fine-tuning."""

    def check(self) -> None:
        check_share(self, "dropout")


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
class BertArguments(TextPretrainingArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="bert-mini")
    training: TrainingArguments = defaults(TrainingArguments, learning_rate=1e-3)
    masking: MaskingArguments = defaults(MaskingArguments)
    initialization: InitializationArguments = defaults(InitializationArguments)
    windows: PieceWindowArguments = defaults(PieceWindowArguments)


def pretrain_bert(arguments: BertArguments) -> dict[str, Any]:
    """Train a BERT on windows of tokens; returns the record."""
    run = Run("bert", arguments)
    [tokenizer], rows = load_windows(run, piece_recipe)

    from toolkit.models.bert import BertForMaskedLM

    config = run.preset.config(len(tokenizer))
    return train_on_masked_windows(run, BertForMaskedLM, config, tokenizer, rows, MaskTokens)


def piece_recipe(run: Run, text: Corpus) -> tuple[list[Any], PieceWindows]:
    """The tokenizer, and the recipe that makes windows; `text` is what a new tokenizer is trained on."""
    windows, flags = run.arguments.windows, run.arguments.tokenizer
    if flags.tokenizer is None:
        tokenizer = new_tokenizer("wordpiece", bert_normalizer(flags.do_lower_case), text, run)
    else:
        tokenizer = load_tokenizer(flags.tokenizer)
        if tokenizer.mask_token_id is None or spells_words(tokenizer):
            raise InputError(
                f"--tokenizer {flags.tokenizer}: does not fit {run.family.reader}, which needs pieces of words and a "
                "[MASK]; make one with: toolkit tokenizer --kind wordpiece"
            )
    if windows.max_length > MAX_POSITIONS:
        raise InputError(
            f"--max_length {windows.max_length}: {run.arguments.encoder.preset} has {MAX_POSITIONS} positions"
        )
    tokenizer.model_max_length = windows.max_length  # later positions are never trained
    if run.flags.get("whole_word_mask"):
        continuing_tokens(tokenizer)  # raises if the tokenizer does not mark them
    return [tokenizer], PieceWindows(tokenizer, windows.max_length, windows.packing)


def train_on_masked_windows(
    run: Run, model_class, config, tokenizer, rows: tuple[Any, Any], collate_class, **options: Any
) -> dict[str, Any]:
    """Train a BERT or an ELECTRA, whose `collate_class` is `MaskTokens` or a subclass, and return the record.

    `options` are further arguments of `train_and_record`.
    """
    import torch

    from toolkit.training.checkpoints import list_checkpoints

    arguments, seed = run.arguments, run.arguments.training.seed
    exact = collate_class.for_tokenizer(tokenizer, seed, packed=arguments.windows.packing == "lines")
    start, end = arguments.masking.mlm_probability, arguments.masking.mlm_probability_end
    continues = continuing_tokens(tokenizer) if arguments.masking.whole_word_mask else None
    collate = dataclasses.replace(exact, shares=(start, start if end is None else end), continues=continues)
    torch.manual_seed(seed)
    model = model_class(config)
    model.set_dropout(arguments.initialization.dropout)
    if not (run.resume and list_checkpoints(run.output_dir)):
        initialize(model, rows[0], tokenizer.all_special_ids, run)
    run.create_output_dir()
    return train_and_record(run, model, tokenizer, rows, collate, exact, item="token", **options)


def initialize(model, rows, special_ids: list[int], run: Run) -> None:
    """Set the initial weights that are not random: attention, output bias, embeddings."""
    import torch

    from toolkit.pretraining.skip_gram import train_token_vectors

    embeddings, flags = model.get_input_embeddings(), run.arguments.initialization
    if flags.attention == "neighbours":
        model.attend_to_neighbours()
    if flags.output_bias == "frequencies":
        counts = count_tokens(rows, embeddings.num_embeddings)
        counts[special_ids] = 0  # never a target
        model.set_output_bias(torch.from_numpy(counts))
    if flags.embeddings == "word2vec":
        run.say("learning embeddings with word2vec")
        vectors = train_token_vectors(rows, special_ids, embeddings.embedding_dim, run.arguments.training.seed)
        model.set_word_embeddings(*map(torch.from_numpy, vectors))


@dataclass
class MaskTokens:
    """Collates windows of tokens and masks some of them, anew each time.

    Of the chosen tokens, 80% become [MASK], 10% a random token and 10% stay; all are targets of the loss. With
    `cls_token_id`, the token that begins each sequence of a packed window, the batch has `sequence_ids`, zero for
    padding, instead of `attention_mask`.
    """

    pad_token_id: int
    mask_token_id: int
    special_token_ids: list[int]  # never chosen, and never a random token
    vocab_size: int
    seed: int  # of the run
    shares: tuple[float, float] = (EVAL_MASKED_SHARE, EVAL_MASKED_SHARE)  # chosen at the start and end; linear between
    continues: np.ndarray | None = None  # (vocab_size,) bool, tokens inside a word: words are chosen as a whole
    cls_token_id: int | None = None

    BECOMES_MASK, BECOMES_RANDOM = 0.8, 0.1  # fractions of the chosen tokens

    @classmethod
    def for_tokenizer(cls, tokenizer, seed: int, packed: bool):
        return cls(
            tokenizer.pad_token_id,
            tokenizer.mask_token_id,
            tokenizer.all_special_ids,
            len(tokenizer),
            seed,
            cls_token_id=tokenizer.cls_token_id if packed else None,
        )

    def __call__(self, rows: list[dict], keys: list[SampleKey]) -> dict[str, Any]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        input_ids = np.full((len(rows), width), self.pad_token_id)
        labels = np.full((len(rows), width), -100)
        sequence_ids = np.zeros((len(rows), width), dtype=np.int64)
        for i, (row, key) in enumerate(zip(rows, keys, strict=True)):
            ids = np.asarray(row["input_ids"])
            share = self.shares[0] + key.progress * (self.shares[1] - self.shares[0])
            input_ids[i, : len(ids)], labels[i, : len(ids)] = self.mask(ids, key.seed(self.seed), share)
            sequence_ids[i, : len(ids)] = 1 if self.cls_token_id is None else np.cumsum(ids == self.cls_token_id)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask" if self.cls_token_id is None else "sequence_ids": torch.from_numpy(sequence_ids),
            "labels": torch.from_numpy(labels),
            "num_targets": int((labels != -100).sum()),
            "num_items": sum(len(row["input_ids"]) for row in rows),
        }

    def mask(
        self, ids: np.ndarray, seed: tuple[int, ...], share: float = EVAL_MASKED_SHARE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask one window: `ids` (time,) -> the masked ids and the labels, both (time,).

        `share` is the fraction of the tokens, special ones aside, that are targets, at least one. All other labels
        are -100.
        """
        rng = np.random.default_rng(seed)
        candidates = np.flatnonzero(~np.isin(ids, self.special_token_ids))
        num_targets = max(1, round(share * len(candidates)))
        if self.continues is None:
            chosen = rng.permutation(candidates)[:num_targets]
        else:
            words = np.cumsum(~self.continues[ids])[candidates]
            chosen = candidates[_tokens_of_random_words(words, num_targets, rng)]
        labels = np.full(len(ids), -100)
        labels[chosen] = ids[chosen]
        masked, fate = ids.copy(), rng.random(len(chosen))
        masked[chosen[fate < self.BECOMES_MASK]] = self.mask_token_id
        replaced = chosen[(fate >= self.BECOMES_MASK) & (fate < self.BECOMES_MASK + self.BECOMES_RANDOM)]
        ordinary = self._ordinary_token_ids
        masked[replaced] = ordinary[rng.integers(len(ordinary), size=len(replaced))]
        return masked, labels

    @cached_property
    def _ordinary_token_ids(self) -> np.ndarray:
        """The ids of all tokens that are not special, wherever in the vocabulary those are."""
        return np.setdiff1d(np.arange(self.vocab_size), self.special_token_ids)


def _tokens_of_random_words(words: np.ndarray, num_tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Choose random words of `num_tokens` tokens in all, or slightly fewer, but at least one word.

    `words` (tokens,), the number of the word of each token -> (tokens,) bool.
    """
    order = rng.permutation(np.unique(words))
    sizes = np.bincount(words)[order]
    num_words = max(1, np.searchsorted(np.cumsum(sizes), num_tokens, side="right"))
    return np.isin(words, order[:num_words])


def count_tokens(rows, vocab_size: int) -> np.ndarray:
    """(vocab_size,): how often each token occurs in windows with `input_ids`."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for batch in rows.with_format("arrow").iter(1000):
        counts += np.bincount(batch["input_ids"].combine_chunks().flatten(), minlength=vocab_size)
    return counts


METHOD = Method(BertArguments, pretrain_bert, piece_recipe)
