"""What tasks on text share: which token belongs to which word, padding, word dropout.

Word dropout is of Iyyer, Manjunatha, Boyd-Graber & Daumé (2015), https://aclanthology.org/P15-1162.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.task import NO_LABEL, FinetuneArguments, Task
from toolkit.errors import InputError, check_share
from toolkit.modalities.arguments import TextEncoderArguments
from toolkit.modalities.text import max_length
from toolkit.models.families import PREFIX
from toolkit.runs.arguments import Arguments, defaults, with_flags

NO_WORD = -1


@dataclass(kw_only=True)
class WordDropoutArguments(Arguments):
    """regularization"""

    word_dropout: float = 0.0
    """Replace words of the training examples by the unknown word with this probability."""

    def check(self) -> None:
        check_share(self, "word_dropout")


@dataclass(kw_only=True)
class TextTaskArguments(FinetuneArguments):
    options: TextEncoderArguments = defaults(TextEncoderArguments)
    regularization: WordDropoutArguments = defaults(WordDropoutArguments)

    def resolved(self) -> "TextTaskArguments":
        return with_flags(self, layers=self.options.layers or ("mix" if self.encoder.freeze else "top"))


class TextTask(Task):
    """A task on text. An encoded row has `input_ids` and `words`, the word of each token or `NO_WORD`."""

    modality_name = "text"

    @abstractmethod
    def encode_words(self, rows, tokenizer, label2id: dict[str, int], max_length: int | None):
        """Encoded rows, none longer than `max_length` tokens, as a data set."""

    @abstractmethod
    def collate_labels(self, encoded: list[dict], num_tokens: int) -> tuple[Any, int]:
        """The labels of a batch that is padded to `num_tokens`, as an array of ids, and the number of its items."""

    def load_model(self, arguments: TextTaskArguments, train_rows, **config_fields: Any) -> tuple[Any, Any]:
        model, tokenizer = super().load_model(arguments, train_rows, **config_fields)
        if arguments.regularization.word_dropout and tokenizer.unk_token_id is None:
            raise InputError(f"--word_dropout: the tokenizer of {arguments.encoder.encoder} has no unknown word")
        return model, tokenizer

    def encode(self, rows, processor, model):
        return self.encode_words(rows, processor, model.config.label2id, max_length(processor, model))

    @abstractmethod
    def words_of(self, row: dict[str, Any], processor) -> list[str]:
        """The words that an encoded row counts, as they are written."""

    @abstractmethod
    def predicted(self, prediction: Any, words: list[str], label: str | None, folder: str, model) -> list[Any]:
        """What `toolkit explain` explains: a list of `toolkit.explain.texts.Predicted`, for `label` if it is given."""

    def explain(
        self, folder: str, item: str, label: str | None, layers: Sequence[str] | None, output_dir: Path
    ) -> tuple[str, list[Path]]:
        import torch

        from toolkit.explain.texts import ReadText, explain_labels

        if layers:
            raise InputError(f"--layers {layers[0]}: goes with images, not with texts")
        row = self.read_one(item)
        model, processor = self.load_finetuned(folder)
        (encoded, *rest) = self.encode([row], processor, model.eval())
        if rest:
            raise InputError(f"{item[:40]}…: longer than the model takes at once")
        inputs = self.collate([encoded], [], processor, None)
        with torch.no_grad():
            outputs = self.forward(model, {name: inputs[name] for name in ("input_ids", "attention_mask")})
        (prediction,) = self.decode([encoded], outputs, model, processor)
        if max(encoded["words"], default=NO_WORD) == NO_WORD:
            raise InputError(f"{item[:40]!r}: there is no word in it")
        is_masked = processor.mask_token_id is not None and not model.base_model.config.model_type.startswith(PREFIX)
        replacement = processor.mask_token_id if is_masked else processor.unk_token_id
        if replacement is None:
            raise InputError(f"{folder}: its tokenizer has no token that could stand in for a word")
        words = self.words_of(row, processor)[: max(encoded["words"]) + 1]
        tokens = processor.convert_ids_to_tokens(encoded["input_ids"])
        ids = inputs["input_ids"][0]
        text = ReadText(
            ids, tokens, encoded["words"], words, replacement, processor.convert_ids_to_tokens(replacement)
        )
        predicted = self.predicted(prediction, words, label, folder, model)
        files = explain_labels(model, text, predicted, f"{self.name}: {' '.join(words)}", output_dir)
        return prediction.as_text(self.title(row)), files

    def notes(self, rows, processor) -> list[str]:
        from toolkit.corpora.encoding import describe_lost_text

        texts = rows["text"] if "text" in rows.column_names else map(" ".join, rows["tokens"])
        return [describe_lost_text(processor, texts)]

    def lengths(self, encoded) -> list[int]:
        return [len(row["input_ids"]) for row in encoded]

    def collate(self, encoded: list[dict], keys, processor, arguments: TextTaskArguments | None) -> dict[str, Any]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        if arguments is not None and arguments.regularization.word_dropout:
            rate, seed = arguments.regularization.word_dropout, arguments.training.seed
            encoded = [
                drop_words(row, rate, processor.unk_token_id, key.seed(seed))
                for row, key in zip(encoded, keys, strict=True)
            ]
        ids = [torch.tensor(row["input_ids"], dtype=torch.long) for row in encoded]
        input_ids = pad_sequence(ids, batch_first=True, padding_value=processor.pad_token_id)
        labels, num_items = self.collate_labels(encoded, input_ids.shape[1])
        return {
            "input_ids": input_ids,
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "labels": torch.from_numpy(labels),
            "num_targets": int((labels != NO_LABEL).sum()),
            "num_items": num_items,
        }


def words_of_tokens(encoding, index: int = 0) -> list[int]:
    """The word of each token of a tokenized text; `NO_WORD` for special tokens."""
    return [NO_WORD if word is None else word for word in encoding.word_ids(index)]


def first_tokens(words: list[int]) -> list[int]:
    """The positions of the first token of each word."""
    return [i for i, word in enumerate(words) if word != NO_WORD and (i == 0 or word != words[i - 1])]


def drop_words(row: dict, rate: float, unk_token_id: int, seed: tuple[int, ...]) -> dict:
    """Replace each word of an encoded row by one unknown token with probability `rate`."""
    words, starts = row["words"], set(first_tokens(row["words"]))
    dropped = [*(np.random.default_rng(seed).random(max(words) + 1) < rate), False]  # the last one is for `NO_WORD`
    kept = [i for i, word in enumerate(words) if not dropped[word] or i in starts]
    input_ids = [unk_token_id if dropped[words[i]] else row["input_ids"][i] for i in kept]
    return {**row, "input_ids": input_ids, "words": [words[i] for i in kept]}
