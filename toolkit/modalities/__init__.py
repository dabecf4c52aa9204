"""What an encoder reads: text, images, recordings. One object per modality loads examples, encodes and shows them.

Tasks, few-shot, zero-shot, comparison and the command line ask the modality of an encoder. A new modality is one file
here (or anywhere else) and one entry of `MODALITIES`. Importing this package loads no torch.
"""

from typing import Any

from toolkit.errors import InputError
from toolkit.modalities.audio import AudioModality
from toolkit.modalities.base import Modality
from toolkit.modalities.images import ImageModality
from toolkit.modalities.text import TextModality
from toolkit.models.families import family_of

__all__ = ["MODALITIES", "Modality", "modality_of"]

MODALITIES: dict[str, Modality] = {
    "text": TextModality(),
    "image": ImageModality(),
    "audio": AudioModality(),
}


def modality_of(config: Any) -> Modality:
    """What the model of a configuration reads, by its family or the main input of its class. Raises `InputError`."""
    from transformers import MODEL_MAPPING

    if family := family_of(config.model_type):
        return MODALITIES[family.modality]
    main_input = getattr(MODEL_MAPPING.get(type(config), None), "main_input_name", "input_ids")
    for modality in MODALITIES.values():
        if main_input in modality.main_input_names:
            return modality
    raise InputError(f"{type(config).__name__}: the model reads {main_input}, which no modality of the toolkit has")
