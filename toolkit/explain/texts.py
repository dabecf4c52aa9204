"""Explain the prediction of a text classifier, a tagger or a sequence-to-sequence model for one text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from toolkit.errors import InputError
from toolkit.explain.attention import attention_weights
from toolkit.explain.text_pictures import (
    MOST_TOKENS,
    MOST_WORDS,
    Page,
    draw_bars,
    draw_heads,
    draw_matrix,
    draw_states,
    how_many,
)
from toolkit.explain.words import embedding_layer, hidden_states, integrated_gradients, occlusion

UNIT = "change of the logit"
NOTES = {
    "occlusion": "Occlusion: how much the logit falls when the word is replaced by {token}.",
    "integrated gradients": "Integrated gradients: what each word adds to the logit of a text of {token} alone; "
    "up to the error of the integration, the values sum to the difference of the two logits.",
}


class ReadText(NamedTuple):
    """A text as the model reads it."""

    ids: torch.Tensor  # (T,)
    tokens: list[str]  # as text, for each id
    word_of_token: list[int]  # negative for special tokens
    words: list[str]
    replacement: int  # id of the token that stands for no word
    replacement_token: str


class Predicted(NamedTuple):
    """A label that is explained: of the text, or of a word."""

    label: str
    label_id: int
    word: str = ""  # of a tagger, which explains each word


def explain_labels(
    model: PreTrainedModel, text: ReadText, predicted: Sequence[Predicted], title: str, folder: Path
) -> list[Path]:
    """Write pictures of the importance of words for each label, of the attention, and of the hidden states.

    Returns the paths of the files. What a network does not have is left out.
    """
    page = Page(title, folder)
    label_ids, is_tagger = [each.label_id for each in predicted], bool(predicted[0].word)

    def forward(ids: torch.Tensor, mask: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids, attention_mask=mask).logits
        if not is_tagger:
            return logits[:, label_ids]
        return logits[torch.arange(len(ids)).unsqueeze(1), first, torch.tensor(label_ids)]

    arguments = text.ids, text.word_of_token, text.replacement
    values = {"occlusion": occlusion(forward, *arguments)}
    if (embeddings := embedding_layer(model, text.ids)) is not None:
        values["integrated gradients"] = integrated_gradients(forward, embeddings, *arguments)
    notes = {method: NOTES[method].format(token=text.replacement_token) for method in values}
    limit = how_many(len(text.words), MOST_WORDS, "words")
    if not is_tagger:
        (label,) = (each.label for each in predicted)
        for method, of_words in values.items():
            page.add_words(f"Importance of words for “{label}”: {method}", notes[method], text.words, of_words[0])
        figure = draw_bars(text.words, {method: found[0] for method, found in values.items()}, UNIT)
        page.add_picture("words", f"Importance of words for “{label}”", " ".join(notes.values()) + limit, figure)
    else:
        names = [f"{each.word} {each.label}" for each in predicted]
        for method, found in values.items():
            heading = f"Importance of words for each tag: {method}"
            figure = draw_matrix(names, text.words, found, heading, UNIT, ("word and its tag", "word"))
            page.add_picture(f"words_{method.replace(' ', '_')}", heading, notes[method] + limit, figure)
    inputs = {"input_ids": text.ids[None], "attention_mask": torch.ones_like(text.ids[None])}
    encoder: Any = model.base_model  # since not every head passes the weights on
    if weights := attention_weights(encoder, **inputs):
        note = "Each square is one head: rows are queries, columns are keys, and each row sums to 1."
        note += how_many(len(text.tokens), MOST_TOKENS, "tokens")
        layers = [layer.numpy() for layer in weights]
        page.add_picture("attention", "Attention by layer and head", note, draw_heads(text.tokens, layers))
    if (states := hidden_states(model, text.ids)) is not None:
        note = "The state of the top layer after each word, and how far each word moves it." + limit
        of_words = states[:, [text.word_of_token.index(word) for word in range(len(text.words))]]
        page.add_picture("hidden_states", "Hidden state over time", note, draw_states(text.words, of_words))
    return page.write()


def explain_generation(
    model: PreTrainedModel,
    ids: torch.Tensor,
    tokens: Sequence[str],
    target: torch.Tensor,
    symbols: Sequence[str],
    title: str,
    folder: Path,
) -> list[Path]:
    """Write a heat map of the attention of a decoder: the source across, the target down.

    Args:
        model: The sequence-to-sequence model.
        ids: (S,), the source; `tokens` are its tokens as text.
        target: (T,), the target that was generated, without the start token; `symbols` are its tokens as text.
        title: Title of the page.
        folder: Folder for the pictures.

    Returns:
        The paths of the files.

    Raises:
        InputError: The model has no attention.
    """
    inputs = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])}
    layers = attention_weights(model, **inputs, labels=target[None])
    if not layers:
        raise InputError("this model has no attention: its decoder reads one vector")
    page = Page(title, folder)
    for number, layer in enumerate(layers, start=1):
        which = "" if len(layers) == 1 else f", layer {number}, mean of its heads"
        heading = f"Attention of the decoder to the source{which}"
        weights = layer.mean(dim=0).numpy()
        figure = draw_matrix(symbols, tokens, weights, heading, "weight", ("target", "source"))
        name = "attention" if len(layers) == 1 else f"attention_layer_{number}"
        limit = how_many(max(len(symbols), len(tokens)), MOST_WORDS, "tokens")
        page.add_picture(name, heading, "Each row sums to 1." + limit, figure)
    return page.write()
