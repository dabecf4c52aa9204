"""How the page shows examples: as small pictures, or as sound."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from toolkit.app.project import Example, Project
from toolkit.data.audio_decoding import head_of, open_audio
from toolkit.data.media_files import as_file
from toolkit.modalities import MODALITIES

A_SCREEN = 48  # examples that are shown at a time
# Of the buttons beside pictures and sounds; gradio's others send them to a Hub.
PICTURE_BUTTONS: list[Any] = ["download", "fullscreen"]
SOUND_BUTTONS: list[Any] = ["download"]


def choices_of(project: Project) -> list[tuple[str, int]]:
    """The classes with their numbers of examples, and their keys."""
    counts = Counter(example.of_class for example in project.examples)
    return [(f"{each.name} ({counts[each.key]:,})", each.key) for each in project.classes]


def pictures_of(
    project: Project, examples: Sequence[Example], captions: Sequence[str] | None = None
) -> list[tuple[Any, str]]:
    """A small picture of each image or recording, with its name or a caption, for a gallery; none of texts."""
    modality = MODALITIES[project.modality_name]
    found = []
    for number, example in enumerate(examples if modality.has_thumbnails else ()):
        row = {modality.name: as_file(project.item(example)), "name": example.name}
        content = base64.b64decode((modality.thumbnail(row) or "").partition(",")[2])
        found.append((Image.open(io.BytesIO(content)), captions[number] if captions else example.name))
    return found


def sound_of(project: Project, example: Example) -> tuple[int, np.ndarray]:
    """A recording as a player takes it."""
    audio = as_file(project.item(example))
    return head_of(audio, example.name).sampling_rate, open_audio(audio, example.name)
