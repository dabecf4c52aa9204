"""Extract one feature vector per text or image: the mean of the last hidden states over tokens or spatial positions.

Shape legend: N items, D features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device

from toolkit.errors import InputError, first_line
from toolkit.hub.download import local_copy
from toolkit.modalities import Modality, modality_of
from toolkit.models.families import FEW_SHOT_FILE, family_of
from toolkit.training.distributed import make_accelerator
from toolkit.transfer.encoders import load_encoder, modality_of_encoder


class Featurizer:
    """An encoder as a function from items to features.

    Args:
        name: What the encoder is called in messages.
        modality: What it reads.
        model: The encoder.
        processor: Its tokenizer or image processor.
        batch_size: Items per batch; batches group items of similar size to reduce padding.
    """

    def __init__(self, name: str, modality: Modality, model, processor, batch_size: int = 64):
        self.name, self.modality, self.processor, self.batch_size = name, modality, processor, batch_size
        self.model = model.to(make_accelerator().device).eval()
        self.pool = modality.pooling(self.model, processor)

    @property
    def has_static_vectors(self) -> bool:
        """Whether the encoder is a table of word vectors."""
        family = family_of(self.model.config.model_type)
        return family is not None and family.first_word_id is not None

    def encode(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Encoded rows. Raises `InputError` that gives the number of an item that is empty or cannot be read."""
        return self.modality.encode(items, self.processor, self.model)

    def features(self, encoded: Sequence[dict[str, Any]]) -> torch.Tensor:
        """Features (N, D) of a batch of encoded rows, with gradients if they are enabled."""
        return self.pool(send_to_device(self.modality.collate(encoded, self.processor), self.model.device))

    def __call__(self, items: Sequence[Any]) -> np.ndarray:
        """Features (N, D) float32 of items. Raises `InputError` if there is none, or one cannot be read."""
        encoded = self.encode(items)
        if not encoded:
            raise InputError("there is no item, expected one or more")
        order = sorted(range(len(encoded)), key=lambda index: encoded[index]["size"])
        found: list[np.ndarray | None] = [None] * len(encoded)
        with torch.inference_mode():
            for start in range(0, len(order), self.batch_size):
                indices = order[start : start + self.batch_size]
                vectors = self.features([encoded[index] for index in indices])
                for index, vector in zip(indices, vectors.float().cpu().numpy(), strict=True):
                    found[index] = vector
        return np.stack(found)  # type: ignore[arg-type]


def load_featurizer(encoder: str, batch_size: int = 64) -> Featurizer:
    """The featurizer of a folder or Hub id; of a few-shot classifier, that of its encoder.

    Raises:
        InputError: The encoder cannot be loaded.
    """
    if (local_copy(encoder) / FEW_SHOT_FILE).is_file():
        return _featurizer_of_classifier(encoder, batch_size)
    modality = modality_of_encoder(encoder)
    model, processor = load_encoder(encoder, "AutoModel", modality)
    return Featurizer(encoder, modality, model, processor, batch_size)


def _featurizer_of_classifier(name: str, batch_size: int) -> Featurizer:
    from transformers import AutoConfig

    from toolkit.models import few_shot_head

    folder = local_copy(name)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model_class = getattr(few_shot_head, config.architectures[0])
        model = model_class.from_pretrained(folder, config=config, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{name}: holds no few-shot classifier with an encoder ({first_line(error)})") from None
    modality = modality_of(model.encoder.config)
    processor = modality.load_processor(name, model.encoder.config, modality.encoder_arguments())
    return Featurizer(name, modality, model.encoder, processor, batch_size)
