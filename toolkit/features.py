"""What an encoder makes of texts or images: one vector each, the mean of its last states over tokens or space.

Of a text: Reimers & Gurevych (2019), "Sentence-BERT", https://arxiv.org/abs/1908.10084; with rare words counting for
more: Arora, Liang & Ma (2017), "A simple but tough-to-beat baseline for sentence embeddings",
https://openreview.net/forum?id=SyK00v5xx.

Shape legend: N items, T tokens, D features.
"""

from abc import ABC, abstractmethod
from collections import Counter
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
from toolkit.tokenization import WITHOUT_LIMIT

STATIC = ("toolkit-word2vec", "toolkit-fasttext")  # whose vectors of frequent words say little of a text
HALF_COUNTS = 1e-3  # the share of all words at which a word counts half, "a" of Arora et al.


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
    learns_words = False  # whether `know` changes anything

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

    def know(self, usual: Sequence[Any]) -> None:
        """Learn from items what the encoder has to be told of them, if anything."""
        return

    def save(self, folder: Path) -> None:
        """The encoder, from which `load_featuriser` makes the same again."""
        save_model(folder, self.model, self.processor)


class TextFeaturiser(Featuriser):
    """Of texts. Of BERT and its like the mean is over all tokens, of this package's own encoders over words; a word of
    one with a vector a word counts the less, the more often it stands in the texts that `know` is given."""

    reads = "texts"

    def __init__(self, name: str, model, processor, batch_size: int):
        super().__init__(name, model, processor, batch_size)
        self.of_words = model.config.model_type.startswith("toolkit-")
        self.learns_words = model.config.model_type in STATIC
        self.word_weights: dict[str, float] = {}
        limit = min(processor.model_max_length, getattr(model.config, "max_position_embeddings", WITHOUT_LIMIT))
        self.limit = limit if limit < WITHOUT_LIMIT else None

    def know(self, usual: Sequence[str]) -> None:
        if not self.learns_words:
            return
        counts = Counter(word for text in self._words(usual) for word in text)
        total = sum(counts.values())
        self.word_weights = {word: HALF_COUNTS / (HALF_COUNTS + n / total) for word, n in counts.items()}

    def rows(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        for number, text in enumerate(items, start=1):
            if not isinstance(text, str):
                raise InputError(f"item {number}: {type(text).__name__}, expected a text, which {self.name} reads")
            if not text.strip():
                raise InputError(f"item {number}: the text is empty")
        encoding = self.processor(list(items), truncation=self.limit is not None, max_length=self.limit, verbose=False)
        words = self._words(items) if self.word_weights else None
        rows = []
        for index, ids in enumerate(encoding["input_ids"]):
            weights = [1.0] * len(ids)
            if self.of_words or words:
                previous, weights = None, []
                for word in encoding.word_ids(index):
                    counts = word is not None and not (self.of_words and word == previous)
                    weights.append(counts and (self.word_weights.get(words[index][word], 1.0) if words else 1.0))
                    previous = word
            rows.append({"input_ids": ids, "weights": weights, "size": len(ids)})
        return rows

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

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text as the tokenizer splits and spells it."""
        backend = self.processor.backend_tokenizer
        normalise = backend.normalizer.normalize_str if backend.normalizer else str
        return [[word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalise(text))] for text in texts]


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
