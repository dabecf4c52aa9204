"""What tasks on text share: tokenizers, which pieces belong to which word, word dropout.

Word dropout: Iyyer, Manjunatha, Boyd-Graber & Daumé (2015), https://aclanthology.org/P15-1162.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tasks.base import FinetuneArguments, Task
from toolkit.errors import InputError, check_share

NO_WORD = -1


@dataclass(kw_only=True)
class WordsArguments(FinetuneArguments):
    tokenizer: str | None = None
    """Tokenizer of a scratch preset; by default one is trained on the training data."""
    layers: Literal["top", "mix"] | None = None
    """What the head reads of an encoder of transformers, such as a BERT: its top layer, as transformers' heads do, or
    a learned mix of all, as an ELMo's (default: mix where the encoder is frozen)."""
    word_dropout: float = 0.0
    """Replace words of the training examples by the unknown word with this probability."""

    def __post_init__(self):
        super().__post_init__()
        check_share(self, "word_dropout")

    def settled(self) -> "WordsArguments":
        return dataclasses.replace(self, layers=self.layers or ("mix" if self.freeze else "top"))


class WordsTask(Task):
    """A task on text. A row of features also has `input_ids` and `words`, the word of each piece or `NO_WORD`."""

    @abstractmethod
    def texts(self, rows) -> Iterable[str]:
        """The text of the rows, for training a tokenizer."""

    @abstractmethod
    def encode_words(self, rows, tokenizer, label2id: dict[str, int], max_length: int | None):
        """The rows of features, none longer than `max_length` pieces, as a data set."""

    @abstractmethod
    def collate_words(self, rows: list[dict], pad_token_id: int) -> dict[str, Any]:
        """From rows of features to a batch, as `toolkit.training.batches` wants it."""

    def load_encoder(self, arguments: WordsArguments, train_rows, **config_fields: Any) -> tuple[Any, Any]:
        import tempfile

        from toolkit.corpora.tokenization import train_tokenizer
        from toolkit.models.families import PRESETS
        from toolkit.transfer.encoders import SCRATCH, load_encoder

        source, tokenizer_name = arguments.encoder.removeprefix(SCRATCH), arguments.tokenizer
        config_fields["mix_layers"] = arguments.settled().layers == "mix"
        with tempfile.TemporaryDirectory() as folder:
            if arguments.encoder.startswith(SCRATCH) and source in PRESETS and tokenizer_name is None:
                preset, tokenizer_name = PRESETS[source], folder
                texts = self.texts(train_rows)
                train_tokenizer(texts, preset.tokenizer_kind, preset.vocab_size, min_frequency=1).save_pretrained(
                    folder
                )
            model, tokenizer = load_encoder(arguments.encoder, self.model_class, tokenizer_name, **config_fields)
        if arguments.word_dropout and tokenizer.unk_token_id is None:
            raise InputError(f"--word_dropout: the tokenizer of {arguments.encoder} has no unknown word")
        return model, tokenizer

    def load_finetuned(self, folder: str) -> tuple[Any, Any]:
        from toolkit.transfer.encoders import load_encoder

        return load_encoder(folder, self.model_class)

    def encode(self, rows, processor, model):
        """None longer than the model and its tokenizer allow."""
        from toolkit.corpora.tokenization import WITHOUT_LIMIT

        limit = processor.model_max_length
        limit = min(limit, getattr(model.config, "max_position_embeddings", limit))
        return self.encode_words(rows, processor, model.config.label2id, limit if limit < WITHOUT_LIMIT else None)

    def lengths(self, features) -> list[int]:
        return [len(ids) for ids in features["input_ids"]]

    def collate(self, rows: list[dict], draws, processor, arguments: WordsArguments | None) -> dict[str, Any]:
        if arguments is not None and arguments.word_dropout:
            drop_words = WordDropout(arguments.word_dropout, processor.unk_token_id, arguments.seed)
            rows = [drop_words(row, draw) for row, draw in zip(rows, draws, strict=True)]
        return self.collate_words(rows, processor.pad_token_id)


def words_of(encoding, index: int = 0) -> list[int]:
    """The word of each piece of a text that a tokenizer made, `NO_WORD` for [CLS] and its like."""
    return [NO_WORD if word is None else word for word in encoding.word_ids(index)]


def first_pieces(words: list[int]) -> list[int]:
    """Where each word begins."""
    return [i for i, word in enumerate(words) if word != NO_WORD and (i == 0 or word != words[i - 1])]


def padded_pieces(rows: list[dict], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """`input_ids` of the rows, padded on the right, and the mask of what is not padding; both (rows, pieces)."""
    lengths = np.array([len(row["input_ids"]) for row in rows])
    attention_mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(attention_mask.shape, pad_token_id)
    input_ids[attention_mask] = np.concatenate([row["input_ids"] for row in rows])
    return input_ids, attention_mask.astype(np.int64)


@dataclass(frozen=True)
class WordDropout:
    """Replaces each word of a row of features by the unknown word with probability `rate`, all its pieces by one."""

    rate: float
    unk_token_id: int
    seed: int

    def __call__(self, row: dict, draw) -> dict:
        from toolkit.training.batches import seed_of

        ids, words = row["input_ids"], row["words"]
        dropped = np.random.default_rng(seed_of(self.seed, draw)).random(max(words) + 1) < self.rate
        starts = set(first_pieces(words))
        kept = [i for i, word in enumerate(words) if word == NO_WORD or not dropped[word] or i in starts]
        is_dropped = [words[i] != NO_WORD and dropped[words[i]] for i in kept]
        return {
            **row,
            "input_ids": [self.unk_token_id if gone else ids[i] for i, gone in zip(kept, is_dropped, strict=True)],
            "words": [words[i] for i in kept],
        }
