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
from typing import Any

import numpy as np
import torch

from toolkit.corpora.tokenization import (
    CONTINUATION,
    FIRST_CONTINUATION_ID,
    NUM_BYTES,
    SPECIAL_TOKENS,
    WITHOUT_LIMIT,
    load_tokenizer,
)
from toolkit.errors import InputError, first_line
from toolkit.hub.download import local_copy
from toolkit.models import PREFIX
from toolkit.models.heads import pooled
from toolkit.models.pieces import mean_of_tokens
from toolkit.training.distributed import make_accelerator
from toolkit.transfer.encoders import FEW_SHOT_FILE, load_config, load_encoder, load_image_encoder

FIRST_WORD_ID = {"toolkit-word2vec": len(SPECIAL_TOKENS), "toolkit-fasttext": FIRST_CONTINUATION_ID + NUM_BYTES}
HALF_RANK = 100  # the word that counts half


def load_featuriser(encoder: str, batch_size: int = 64) -> "Featuriser":
    """Of a folder or Hub id, by what the encoder reads; of a few-shot classifier it is that which it holds. Raises
    `InputError` where it cannot be loaded."""
    if (local_copy(encoder) / FEW_SHOT_FILE).is_file():
        return _of_classifier(encoder, batch_size)
    if what_it_reads(encoder) == "images":
        model, processor = load_image_encoder(encoder, "AutoModel")
        return ImageFeaturiser(encoder, model, processor, batch_size)
    model, processor = load_encoder(encoder, "AutoModel")
    return TextFeaturiser(encoder, model, processor, batch_size)


def _of_classifier(name: str, batch_size: int) -> "Featuriser":
    from transformers import AutoConfig

    from toolkit.modalities.pixels import load_processor
    from toolkit.models import few_shot

    folder = local_copy(name)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model_class = getattr(few_shot, config.architectures[0])
        model = model_class.from_pretrained(folder, config=config, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{name}: holds no few-shot classifier with an encoder ({first_line(error)})") from None
    if model.main_input_name == "pixel_values":
        return ImageFeaturiser(name, model.encoder, load_processor(name, model.encoder.config), batch_size)
    return TextFeaturiser(name, model.encoder, load_tokenizer(name), batch_size)


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


class TextFeaturiser(Featuriser):
    """Of texts. Of BERT and its like the mean is over all tokens, of this package's own encoders over words; a word of
    one with a vector a word counts the less, the more frequent it was in pretraining, and one without a vector not."""

    reads = "texts"

    def __init__(self, name: str, model, processor, batch_size: int):
        super().__init__(name, model, processor, batch_size)
        self.first_word_id = FIRST_WORD_ID.get(model.config.model_type)
        of_tokens = weights_of_tokens(processor, model.config.model_type)
        self.token_weights = tuple(tensor.to(self.model.device) for tensor in of_tokens)
        limit = min(processor.model_max_length, getattr(model.config, "max_position_embeddings", WITHOUT_LIMIT))
        self.limit = limit if limit < WITHOUT_LIMIT else None

    def rows(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        for number, text in enumerate(items, start=1):
            if not isinstance(text, str):
                raise InputError(f"item {number}: {type(text).__name__}, expected a text, which {self.name} reads")
            if not text.strip():
                raise InputError(f"item {number}: the text is empty")
        encoding = self.processor(list(items), truncation=self.limit is not None, max_length=self.limit, verbose=False)
        return [{"input_ids": ids, "size": len(ids)} for ids in encoding["input_ids"]]

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = self.processor.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}

    def features_of(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        states = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        return mean_of_tokens(states, inputs["input_ids"], inputs["attention_mask"], *self.token_weights)


def weights_of_tokens(tokenizer, model_type: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(V,) and (V,): how much each entry of a vocabulary counts in the mean, and whether it continues a word."""
    weights, continues = torch.ones(len(tokenizer)), torch.zeros(len(tokenizer), dtype=torch.bool)
    if not model_type.startswith(PREFIX):
        return weights, continues
    entries = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    continues[:] = torch.tensor([entry is not None and entry.startswith(CONTINUATION) for entry in entries])
    if (first_word_id := FIRST_WORD_ID.get(model_type)) is not None:
        ranks = (torch.arange(len(entries)) - first_word_id + 1).clamp(min=1)  # of single letters and signs 1
        weights = ranks / (ranks + HALF_RANK)
        weights[tokenizer.unk_token_id] = 0
    weights[continues] = 0
    weights[[i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]] = 0
    return weights, continues


class ImageFeaturiser(Featuriser):
    """Of images: a Pillow image, an array (height, width, 3) of bytes, or the path of a file each."""

    reads = "images"

    def rows(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        from toolkit.data.image_files import as_stored
        from toolkit.modalities.pixels import pixels_of

        named = [{"image": as_stored(item), "name": f"image {n}"} for n, item in enumerate(items, start=1)]
        return [{**row, "size": row["height"] * row["width"]} for row in pixels_of(named, self.processor)]

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        from toolkit.modalities.pixels import Pixels, stacked

        return {"pixel_values": Pixels(self.processor).normalise(stacked(rows))}

    def features_of(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return pooled(self.model(pixel_values=inputs["pixel_values"]))


def _batches(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (order[start : start + size] for start in range(0, len(order), size))
