"""Extract one feature vector per item: the mean of the last hidden states over tokens, spatial positions or time.

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
from toolkit.models.families import FEW_SHOT_FILE, SCRATCH
from toolkit.training.distributed import make_accelerator
from toolkit.transfer.encoders import load_encoder, modality_of_encoder


class Featurizer:
    """An encoder, called `name` in messages, as a function from items to features.

    A batch has `batch_size` items of similar size, to reduce padding.
    """

    def __init__(self, name: str, modality: Modality, model, processor, batch_size: int = 64):
        self.name, self.modality, self.processor, self.batch_size = name, modality, processor, batch_size
        self.model = model.to(make_accelerator().device).eval()
        self.pool = modality.pooling(self.model, processor)

    def adapt(self, items: Sequence[Any]) -> None:
        """Take over from the items to learn from what the processor lacks, such as the range of their values."""
        self.modality.adapt(self.model, self.processor, items)

    def encode(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Encoded rows. Raises `InputError` that gives the number of an item that is empty or cannot be read."""
        return self.modality.encode(items, self.processor, self.model)

    @torch.inference_mode()
    def __call__(self, items: Sequence[Any]) -> np.ndarray:
        """Features (N, D) float32 of items. Raises `InputError` if there is none, or one cannot be read."""
        encoded = self.encode(items)
        if not encoded:
            raise InputError("there is no item, expected one or more")
        order = sorted(range(len(encoded)), key=lambda index: encoded[index]["size"])
        features = []
        for start in range(0, len(order), self.batch_size):
            batch = [encoded[index] for index in order[start : start + self.batch_size]]
            inputs = send_to_device(self.modality.collate(batch, self.processor), self.model.device)
            features.append(self.pool(inputs).float().cpu().numpy())
        return np.concatenate(features)[np.argsort(order)]


def load_featurizer(encoder: str, batch_size: int = 64, modality_name: str | None = None) -> Featurizer:
    """The featurizer of a folder, a Hub id, a `scratch:` folder, or of a few-shot classifier's encoder.

    Raises `InputError`.

    `modality_name` is what items are, by default what the encoder reads: an image encoder can also read recordings.
    """
    is_scratch = encoder.startswith(SCRATCH)
    if not is_scratch and (local_copy(encoder) / FEW_SHOT_FILE).is_file():
        modality, model, processor = _load_encoder_of_classifier(encoder)
        if modality_name not in (None, modality.name):
            raise InputError(f"--modality {modality_name}: {encoder} is a classifier of {modality.name} items")
    else:
        modality = modality_of_encoder(encoder, modality_name)
        model, processor = load_encoder(encoder, "AutoModel", modality)
    return Featurizer(encoder, modality, model, processor, batch_size)


def _load_encoder_of_classifier(name: str) -> tuple[Modality, Any, Any]:
    """The modality of a few-shot classifier, its encoder and the processor."""
    from transformers import AutoConfig

    from toolkit.models import few_shot_head

    folder = local_copy(name)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model_class = getattr(few_shot_head, config.architectures[0])
        encoder = model_class.from_pretrained(folder, config=config, use_safetensors=True).encoder
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{name}: holds no few-shot classifier with an encoder ({first_line(error)})") from None
    modality = modality_of(encoder.config)
    return modality, encoder, modality.load_processor(name, encoder.config, modality.encoder_arguments())
