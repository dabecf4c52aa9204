"""Why a classifier answers as it does: the places of an image or a recording, or the words of a text, that count."""

from html import escape
from typing import Any

import numpy as np
import torch

from toolkit.explain.recordings import OnImages
from toolkit.explain.saliency import occlusion_map
from toolkit.explain.text_pictures import background_of
from toolkit.transfer.few_shot_classifier import FewShotClassifier
from toolkit.transfer.few_shot_model import as_model

MOST_WORDS = 200
LEAST_HEIGHT = 240  # pixels of a picture
OVERLAY = 0.5  # opacity


def explain(classifier: FewShotClassifier, item: Any) -> tuple[np.ndarray | None, str]:
    """What counts for the class that is most similar to an item.

    Returns:
        A picture (height, width, 3) of bytes, for an image or a recording, and HTML.
    """
    label = int(classifier.logits([item])[0].argmax())
    name = escape(str(classifier.classes_[label]))
    if classifier.modality.name == "text":
        return None, _words(classifier, item, label, name)
    featurizer = classifier._featurizer
    model = as_model(classifier).to(featurizer.model.device)
    with torch.no_grad():
        inputs = featurizer.modality.collate(featurizer.encode([item]), featurizer.processor)
    values = inputs[model.main_input_name].to(model.device)
    if classifier.modality.name == "image":
        picture, importance = values[0].mean(dim=0), occlusion_map(model, values, label)
    else:  # drawn with low frequencies below
        spectrogram = values.transpose(1, 2).unsqueeze(1)  # (1, 1, M, T)
        picture, importance = spectrogram[0, 0].flip(0), occlusion_map(OnImages(model), spectrogram, label)[::-1]
    note = f"<p>Red: covering it weakens the answer {name}. Blue: covering it strengthens the answer.</p>"
    return _overlay(picture.cpu().numpy(), importance), note


def _words(classifier: FewShotClassifier, text: str, label: int, name: str) -> str:
    """How much the logit of the class falls when a word is left out, as a color behind the word.

    Li, Monroe & Jurafsky (2016), "Understanding neural networks through representation erasure",
    https://arxiv.org/abs/1612.08220.
    """
    words = text.split()[:MOST_WORDS]
    if len(words) < 2:
        return "<p>A text of one word: the word is the reason.</p>"
    without = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    logits = classifier.logits([" ".join(words), *without])[:, label]
    falls = logits[0] - logits[1:]
    largest = float(np.abs(falls).max()) or 1.0
    colors = [background_of(fall / largest) for fall in falls.tolist()]
    marked = " ".join(
        f'<mark style="background:{color};color:black" title="{fall:+.3f}">{escape(word)}</mark>'
        for word, fall, color in zip(words, falls.tolist(), colors, strict=True)
    )
    note = f"Red: without the word, the answer {name} is weaker. Blue: without it, the answer is stronger."
    return f"<p>{marked}</p><p>{note}</p>"


def _overlay(picture: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """A picture (H, W) in grey under importance values of its shape: red above 0, blue below."""
    from matplotlib import colormaps

    grey = (picture - picture.min()) / (np.ptp(picture) or 1.0)
    largest = float(np.abs(importance).max()) or 1.0
    color = colormaps["RdBu_r"]((importance / largest + 1) / 2)[..., :3]
    mixed = (1 - OVERLAY) * grey[..., None] + OVERLAY * color
    times = -(-LEAST_HEIGHT // len(mixed))
    return (255 * mixed).astype(np.uint8).repeat(times, axis=0).repeat(times, axis=1)
