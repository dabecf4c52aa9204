"""Recurrent networks: predict the next token from those before it and, with two directions, the previous one from
those after it.

Mikolov, Karafiát, Burget, Černocký & Khudanpur (2010), "Recurrent neural network based language model",
https://doi.org/10.21437/Interspeech.2010-343. While training, a token competes with a sample of the vocabulary instead
of all of it: Jean, Cho, Memisevic & Bengio (2015), https://arxiv.org/abs/1412.2007.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from toolkit.corpora.corpus import Corpus
from toolkit.corpora.tokenization import bert_normalizer, continues_word, load_tokenizer
from toolkit.corpora.windows import PieceWindows
from toolkit.errors import InputError, check_flags, check_positive
from toolkit.pretraining.elmo import negatives_of_batch, padded
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run, train_and_record
from toolkit.pretraining.text_corpus import TextPretrainingArguments, byte_tokenizer, load_windows, new_tokenizer
from toolkit.runs.arguments import Arguments, defaults
from toolkit.training.arguments import TrainingArguments
from toolkit.training.sampler import SampleKey


@dataclass(kw_only=True)
class RecurrentNetworkArguments(PresetArguments):
    """encoder"""

    num_directions: int = 2
    """Directions in which the text is read: 2, or 1 for forwards only."""
    num_hidden_layers: int | None = None
    """Number of recurrent layers of each direction (default: that of the preset)."""

    def check(self) -> None:
        check_flags(self, "num_directions", lambda value: value in (1, 2), "1 or 2")
        check_positive(self, "num_hidden_layers")


@dataclass(kw_only=True)
class TokenSamplingArguments(Arguments):
    """objective"""

    num_negatives: int = 2048
    """Sampled tokens that each predicted token competes with while training (sampled softmax)."""

    def check(self) -> None:
        check_positive(self, "num_negatives")


@dataclass(kw_only=True)
class TokenWindowArguments(Arguments):
    """windows"""

    units: Literal["words", "pieces", "characters"] = "pieces"
    """What a new tokenizer makes of the text: frequent words, pieces of words, or characters (bytes of UTF-8)."""
    max_length: int = 64
    """Tokens per window."""

    def check(self) -> None:
        check_flags(self, "max_length", lambda value: value >= 3, "at least 3")


@dataclass(kw_only=True)
class RnnArguments(TextPretrainingArguments):
    encoder: RecurrentNetworkArguments = defaults(RecurrentNetworkArguments, preset="lstm-mini")
    training: TrainingArguments = defaults(TrainingArguments, learning_rate=3e-3)
    objective: TokenSamplingArguments = defaults(TokenSamplingArguments)
    windows: TokenWindowArguments = defaults(TokenWindowArguments)


def pretrain_rnn(arguments: RnnArguments) -> dict[str, Any]:
    """Train a recurrent language model on windows of tokens; returns the record."""
    run = Run("rnn", arguments)
    [tokenizer], rows = load_windows(run, token_recipe)

    import torch

    from toolkit.models.rnn import RnnForPreTraining

    encoder, seed = arguments.encoder, arguments.training.seed
    config = run.preset.config(len(tokenizer))
    config.num_directions = encoder.num_directions
    config.num_hidden_layers = encoder.num_hidden_layers or config.num_hidden_layers
    exact = PredictNeighbours.for_model(config, tokenizer, seed)
    sampled = dataclasses.replace(exact, num_negatives=arguments.objective.num_negatives)
    torch.manual_seed(seed)
    model = RnnForPreTraining(config)
    model.rnn.mark_words(continues_word(tokenizer))
    run.create_output_dir()
    return train_and_record(run, model, tokenizer, rows, sampled, exact, item="token")


def token_recipe(run: Run, text: Corpus) -> tuple[list[Any], PieceWindows]:
    """The tokenizer, and the recipe that makes windows; `text` is what a new tokenizer is trained on."""
    windows, flags = run.arguments.windows, run.arguments.tokenizer
    if flags.tokenizer is not None:
        tokenizer = load_tokenizer(flags.tokenizer)
        if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
            fault = "has no tokens [CLS] and [SEP] for the start of a window and the end of a line"
            raise InputError(f"--tokenizer {flags.tokenizer}: {fault}; make one with: toolkit tokenizer")
    elif windows.units == "characters":
        tokenizer = byte_tokenizer(run)
    else:
        kind: Literal["word", "wordpiece"] = "word" if windows.units == "words" else "wordpiece"
        tokenizer = new_tokenizer(kind, bert_normalizer(flags.do_lower_case), text, run)
    return [tokenizer], PieceWindows(tokenizer, windows.max_length)


@dataclass
class PredictNeighbours:
    """Collates windows of tokens for a language model of one or two directions."""

    pad_token_id: int
    start_id: int  # of the token that starts a window, and is not predicted
    vocab_size: int
    num_directions: int
    seed: int  # of the run
    num_negatives: int | None = None  # tokens that are sampled for all processes of a step; None: all of them

    @classmethod
    def for_model(cls, config, tokenizer, seed: int) -> "PredictNeighbours":
        return cls(tokenizer.pad_token_id, tokenizer.cls_token_id, config.vocab_size, config.num_directions, seed)

    def __call__(self, rows: list[dict], keys: list[SampleKey]) -> dict[str, Any]:
        import torch

        input_ids = padded([row["input_ids"] for row in rows], self.pad_token_id)
        labels = np.where((input_ids == self.pad_token_id) | (input_ids == self.start_id), -100, input_ids)
        num_targets = int((labels[:, 1:] != -100).sum())
        if self.num_directions == 2:
            num_targets += int((labels[:, :-1] != -100).sum())
        batch = {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy((input_ids != self.pad_token_id).astype(np.int64)),
            "labels": torch.from_numpy(labels),
            "num_targets": num_targets,
            "num_items": int((labels != -100).sum()),
        }
        if self.num_negatives:
            batch |= negatives_of_batch(self.vocab_size, self.num_negatives, (self.seed, keys[0].step))
        return batch


METHOD = Method(RnnArguments, pretrain_rnn, token_recipe)
