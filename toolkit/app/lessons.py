"""What the lessons of the page show: convolution, pooling, attention, nearest words, and what pretraining bought."""

import copy
import re
from html import escape
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch.nn import functional as F

from toolkit.app.learner import BATCH, Learner, check_enough, groups_of
from toolkit.app.project import Project
from toolkit.app.rendering import as_percent
from toolkit.errors import InputError
from toolkit.models.families import SCRATCH
from toolkit.transfer.cross_validation import cross_validate
from toolkit.transfer.few_shot_classifier import FewShotClassifier

KERNELS: dict[str, list[list[float]]] = {
    "horizontal edges": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],  # Sobel
    "vertical edges": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "all edges": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],  # Laplace
    "blur": [[1 / 9] * 3] * 3,
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "nothing": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
}
POOLING = ("maximum", "mean")
NUM_NEAREST = 10
MOST_TOKENS = 40
SHOWN_HEIGHT = 240  # pixels


def convolved(image: np.ndarray, kernel: str, size: int, pooling: str) -> np.ndarray:
    """An image (height, width, 3) of bytes in grey, with a kernel laid over every place, and pooled in squares.

    What is negative is drawn darker than the middle grey, if the kernel makes anything negative.
    """
    grey = torch.from_numpy(image).float().mean(dim=2)[None, None]
    values = F.conv2d(
        F.pad(grey, (1, 1, 1, 1), mode="replicate"), torch.tensor(KERNELS[kernel], dtype=torch.float32)[None, None]
    )
    if size > 1:
        pool = F.max_pool2d if pooling == "maximum" else F.avg_pool2d
        values = pool(values, min(size, *values.shape[2:]))
    found = values[0, 0]
    if found.min() < 0:
        found = 127.5 + 127.5 * found / found.abs().max().clamp(min=1e-6)
    pixels = found.clamp(0, 255).byte().numpy()
    times = max(1, SHOWN_HEIGHT // len(pixels))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def table_of(kernel: str) -> str:
    """The numbers of a kernel, as HTML."""
    rows = ("".join(f"<td>{number:.3g}</td>" for number in row) for row in KERNELS[kernel])
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def attention_of(learner: Learner, text: str) -> Any:
    """A figure of which token of a sentence attends to which.

    Of a transformer, the weights of all its layers and heads; of other encoders, which have none, those that
    `_attention_of_vectors` computes.
    """
    from matplotlib import pyplot

    from toolkit.explain.attention import attention_weights
    from toolkit.explain.text_pictures import draw_heads, draw_matrix

    featurizer = learner.featurizer
    model = copy.deepcopy(featurizer.model)  # others may use it meanwhile
    if not text.strip():
        raise InputError("type a sentence first")
    encoded = featurizer.encode([text])
    inputs = send_to_device(featurizer.modality.collate(encoded, featurizer.processor), model.device)
    tokens = featurizer.processor.convert_ids_to_tokens(encoded[0]["input_ids"])[:MOST_TOKENS]
    if weights := attention_weights(model, **inputs):
        figure = draw_heads(tokens, [layer.numpy() for layer in weights])
    else:
        words, shares = _attention_of_vectors(model, featurizer.processor, text)
        figure = draw_matrix(words, words, shares, "softmax(x xᵀ / √d)", "weight", ("query", "key"))
    pyplot.close(figure)  # pyplot would keep it
    return figure


def _attention_of_vectors(model: Any, tokenizer: Any, text: str) -> tuple[list[str], np.ndarray]:
    """The words of a sentence, and how much each attends to which, (W, W), by their vectors alone.

    The scaled dot-product attention of Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, without learned
    projections. The vectors are normalized, as those of rare words can be much longer than others, and a word does not
    attend to itself, as nothing else is so similar to it.
    """
    from toolkit.transfer.word_vectors import TOP_LAYER, word_vectors

    words = re.findall(r"\w+|[^\w\s]", text)[:MOST_TOKENS]
    vectors = word_vectors(model, tokenizer, list(dict.fromkeys(words)), TOP_LAYER)
    words = [word for word in words if word in vectors]
    if len(words) < 2:
        raise InputError("type two words or more that the encoder of this page knows")
    states = torch.from_numpy(np.stack([vectors[word] for word in words]))
    states = F.layer_norm(states, states.shape[1:])
    similarities = (states @ states.T / states.shape[1] ** 0.5).fill_diagonal_(-torch.inf)
    return words, similarities.softmax(dim=-1).numpy()


def nearest_words(learner: Learner, word: str) -> str:
    """The words of the vocabulary whose vectors have the largest cosine with that of a word, as HTML."""
    from toolkit.transfer.word_vectors import TOP_LAYER, word_vectors

    featurizer = learner.featurizer
    word = word.strip()
    if not word or len(word.split()) > 1:
        raise InputError("type one word first")
    vectors = word_vectors(featurizer.model, featurizer.processor, [word], TOP_LAYER)
    if word not in vectors:
        raise InputError(f"{word}: the encoder of this page does not know this word")
    similar = learner.vocabulary.similar_by_vector(vectors[word], topn=NUM_NEAREST + 1)
    others = [(other, cosine) for other, cosine in similar if other != word][:NUM_NEAREST]
    rows = "".join(f"<tr><td>{escape(other)}</td><td>{cosine:.2f}</td></tr>" for other, cosine in others)
    return f"<table><tr><th scope='col'>word</th><th scope='col'>cosine</th></tr>{rows}</table>"


def what_pretraining_bought(learner: Learner, project: Project) -> str:
    """The accuracy of the same examples on the pretrained encoder and on one with random weights, as HTML."""
    state = project.state
    check_enough(state)
    if learner.encoder.startswith(SCRATCH):
        raise InputError("the encoder of this page has random weights itself")
    torch.manual_seed(0)
    found = {}
    items = project.items(state)
    for name, each in (
        ("pretrained", learner),
        ("random weights", Learner(SCRATCH + learner.encoder, project.modality_name)),
    ):
        classifier = FewShotClassifier(None, method="linear")
        features = np.concatenate(
            [each.featurizer(items[first : first + BATCH]) for first in range(0, len(items), BATCH)]
        )
        found[name] = cross_validate(classifier, features, state.labels(), groups_of(state))
    rows = "".join(
        f"<tr><th scope='row'>{name}</th><td>{as_percent(tested.accuracy)}</td></tr>" for name, tested in found.items()
    )
    return f"<table><tr><th scope='col'>encoder</th><th scope='col'>accuracy</th></tr>{rows}</table>"
