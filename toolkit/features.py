"""What an encoder makes of texts or images: one vector each, the mean of its last states over tokens or space.

Of a text: Reimers & Gurevych (2019), "Sentence-BERT", https://arxiv.org/abs/1908.10084. Where each word has one
vector, rare words count for more: Arora, Liang & Ma (2017), "A simple but tough-to-beat baseline for sentence
embeddings", https://openreview.net/forum?id=SyK00v5xx, weigh a word of probability p by a / (a + p). By Zipf's law p
falls as 1 / rank, which the order of the vocabulary tells, and the weight is rank / (rank + half), where their a of
1e-3 makes half about 100.

Shape legend: N items, T tokens, D features.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.checkpoint import save_model
from toolkit.encoders import load_config, load_encoder, load_image_encoder
from toolkit.errors import InputError
from toolkit.models.heads import pooled
from toolkit.processes import make_accelerator
from toolkit.tokenization import FIRST_CONTINUATION_ID, NUM_BYTES, SPECIAL_TOKENS, WITHOUT_LIMIT

FIRST_WORD_ID = {"toolkit-word2vec": len(SPECIAL_TOKENS), "toolkit-fasttext": FIRST_CONTINUATION_ID + NUM_BYTES}
HALF_RANK = 100  # the word that counts half


def load_featuriser(encoder: str, batch_size: int = 64) -> "Featuriser":
    """Of a folder or Hub id, by what the encoder reads. Raises `InputError` where it cannot be loaded."""
    if what_it_reads(encoder) == "images":
        model, processor = load_image_encoder(encoder, "AutoModel")
        return ImageFeaturiser(encoder, model, processor, batch_size)
    model, processor = load_encoder(encoder, "AutoModel")
    return TextFeaturiser(encoder, model, processor, batch_size)


def what_it_reads(encoder: str) -> str:
    """`texts` or `images`, by the configuration alone."""
    from transformers import AutoModel

    model_class = AutoModel._model_mapping.get(type(load_config(encoder)), None)
    return "images" if getattr(model_class, "main_input_name", None) == "pixel_values" else "texts"


class Featuriser(ABC):
    """From items to features. A row is what `collate` makes the inputs of a model of, with `size`, by which alike rows
    are batched together."""

    def __init__(self, name: str, model, processor, batch_size: int):
        self.name, self.processor, self.batch_size = name, processor, batch_size
        self.model = model.to(make_accelerator().device).eval()

    reads: str  # texts or images
    first_word_id: int | None = None  # of an encoder with one vector a word, which are sorted by frequency

    @abstractmethod
    def rows(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Raises `InputError`, with its number, where an item is empty or cannot be read."""

    @abstractmethod
    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]: ...

    @abstractmethod
    def features_of(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(N, D) of a batch, with gradients where they are on."""

    def __call__(self, items: Sequence[Any]) -> np.ndarray:
        """(N, D), float32. Raises `InputError` as `rows` does."""
        rows = self.rows(items)
        if not rows:
            raise InputError("there is no item, expected one or more")
        order = sorted(range(len(rows)), key=lambda index: rows[index]["size"])
        found: list[np.ndarray | None] = [None] * len(rows)
        with torch.inference_mode():
            for some in _batches(order, self.batch_size):
                inputs = self.collate([rows[index] for index in some])
                vectors = self.features_of({name: value.to(self.model.device) for name, value in inputs.items()})
                for index, vector in zip(some, vectors.float().cpu().numpy(), strict=True):
                    found[index] = vector
        return np.stack(found)  # type: ignore[arg-type]

    def save(self, folder: Path) -> None:
        """The encoder, from which `load_featuriser` makes the same again."""
        save_model(folder, self.model, self.processor)


class TextFeaturiser(Featuriser):
    """Of texts. Of BERT and its like the mean is over all tokens, of this package's own encoders over words; a word of
    one with a vector a word counts the less, the more frequent it was in pretraining, and one without a vector not."""

    reads = "texts"

    def __init__(self, name: str, model, processor, batch_size: int):
        super().__init__(name, model, processor, batch_size)
        self.of_words = model.config.model_type.startswith("toolkit-")
        self.first_word_id = FIRST_WORD_ID.get(model.config.model_type)
        limit = min(processor.model_max_length, getattr(model.config, "max_position_embeddings", WITHOUT_LIMIT))
        self.limit = limit if limit < WITHOUT_LIMIT else None

    def rows(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        for number, text in enumerate(items, start=1):
            if not isinstance(text, str):
                raise InputError(f"item {number}: {type(text).__name__}, expected a text, which {self.name} reads")
            if not text.strip():
                raise InputError(f"item {number}: the text is empty")
        encoding = self.processor(list(items), truncation=self.limit is not None, max_length=self.limit, verbose=False)
        return [
            {"input_ids": ids, "weights": self._weights(ids, encoding.word_ids(index)), "size": len(ids)}
            for index, ids in enumerate(encoding["input_ids"])
        ]

    def _weights(self, ids: list[int], words: list[int | None]) -> list[float]:
        """How much each token counts; of `words`, the number of the word of each, only the first one does."""
        if not self.of_words:
            return [1.0] * len(ids)
        weights = []
        for token, word, previous, following in zip(ids, words, [None, *words], [*words[1:], None], strict=False):
            if word is None or word == previous:
                weights.append(0.0)
            elif self.first_word_id is None or word == following:  # a word of several tokens has no rank
                weights.append(1.0)
            elif token == self.processor.unk_token_id:
                weights.append(0.0)
            else:  # below the first word there are single letters and signs
                rank = max(1, token - self.first_word_id + 1)
                weights.append(rank / (rank + HALF_RANK))
        return weights

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = self.processor.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        weights = torch.zeros(inputs["input_ids"].shape)
        for place, row in enumerate(rows):
            weights[place, : len(row["weights"])] = torch.tensor(row["weights"])
        return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "weights": weights}

    def features_of(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        weights = inputs["weights"].unsqueeze(-1)  # (N, T, 1)
        output = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return (output.last_hidden_state * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


class ImageFeaturiser(Featuriser):
    """Of images: a Pillow image, an array (height, width, 3) of bytes, or the path of a file each."""

    reads = "images"

    def rows(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        from toolkit.data.image import as_stored
        from toolkit.images import pixels_of

        named = [{"image": as_stored(item), "name": f"image {n}"} for n, item in enumerate(items, start=1)]
        return [{**row, "size": row["height"] * row["width"]} for row in pixels_of(named, self.processor)]

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        from toolkit.images import Pixels, stacked

        return {"pixel_values": Pixels(self.processor).normalise(stacked(rows))}

    def features_of(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return pooled(self.model(pixel_values=inputs["pixel_values"]))


def _batches(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (order[start : start + size] for start in range(0, len(order), size))
