"""The importance of the words of a text for a prediction, and the hidden states of recurrent networks.

Shape legend: N texts of a batch, T tokens of a text, W its words, K predicted values (logits), H width of a state.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from toolkit.errors import extra

NUM_STEPS = (64, 256, 1024)  # of the integral, increased until the sum over words is close to the difference of logits
MOST_MISSED = 0.05  # largest error, relative to that difference or to 1
ROWS_AT_A_TIME = 32
# From token ids (N, T), their mask (N, T) and the place of the first token of each word (N, W) to logits (N, K).
Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def occlusion(forward: Forward, ids: torch.Tensor, words: Sequence[int], replacement: int) -> np.ndarray:
    """How much each logit falls when a word is replaced by one token: (K, W).

    Zeiler & Fergus (2013), https://arxiv.org/abs/1311.2901, for texts Li, Monroe & Jurafsky (2016), "Understanding
    neural networks through representation erasure", https://arxiv.org/abs/1612.08220.

    Args:
        forward: Computes the logits.
        ids: (T,), the tokens.
        words: (T,), the word of each token, from 0, negative for special tokens.
        replacement: The token that stands for no word, such as [MASK] or [UNK].
    """
    with extra("explain"):
        from captum.attr import FeatureAblation

    def logits(present: torch.Tensor) -> torch.Tensor:
        """From which words are present, (N, W), to logits (N, K)."""
        texts = [_replace_words(ids, words, row > 0, replacement) for row in present]
        rows = [row for row, _ in texts]
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return forward(pad_sequence(rows, batch_first=True), mask, torch.stack([first for _, first in texts]))

    all_present = torch.ones(1, max(words) + 1, device=ids.device)
    falls = FeatureAblation(logits).attribute(all_present, perturbations_per_eval=ROWS_AT_A_TIME)
    return falls.cpu().numpy()


def integrated_gradients(
    forward: Forward, embeddings: nn.Module, ids: torch.Tensor, words: Sequence[int], replacement: int
) -> np.ndarray:
    """How much each word adds to each logit on the way from the text without words to the text: (K, W).

    The gradients of a logit, with respect to the embeddings of tokens, are integrated along the line between both;
    so the sum over words is the difference of the two logits, but for the error of the numerical integral, which is
    large where a logit changes suddenly. Sundararajan, Taly & Yan (2017), "Axiomatic attribution for deep networks",
    https://arxiv.org/abs/1703.01365. The other arguments are those of `occlusion`.
    """
    with extra("explain"):
        from captum.attr import LayerIntegratedGradients

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return forward(ids, torch.ones_like(ids), first.expand(len(ids), -1))

    _, first = _replace_words(ids, words, torch.ones(max(words) + 1), replacement)
    baseline = torch.where(torch.tensor([word < 0 for word in words], device=ids.device), ids, replacement)
    groups = torch.tensor([max(words) + 1 if word < 0 else word for word in words])
    method, rows = LayerIntegratedGradients(logits, embeddings), []
    with torch.no_grad():
        at_end = logits(ids[None])
        # Where the path starts, tokens have the embedding of the replacement, but belong to the same words.
        hook = embeddings.register_forward_hook(lambda layer, *_: F.embedding(baseline[None], layer.weight))
        at_start = logits(ids[None])
        hook.remove()
    for k, difference in enumerate((at_end - at_start)[0].tolist()):
        given: Any = {"baselines": baseline[None], "target": k, "internal_batch_size": ROWS_AT_A_TIME}
        for num_steps in NUM_STEPS:
            found = method.attribute(ids[None], n_steps=num_steps, **given)
            of_tokens = found[0].sum(dim=-1).detach()  # (T,)
            if abs(float(of_tokens.sum()) - difference) <= MOST_MISSED * max(1, abs(difference)):
                break
        rows.append(torch.zeros(max(words) + 2).index_add(0, groups, of_tokens.cpu().float())[:-1])
    return torch.stack(rows).numpy()


def embedding_layer(model: PreTrainedModel, ids: torch.Tensor) -> nn.Module | None:
    """The layer that gives each token of a text its embedding; None if the model has none, as an ELMo."""
    layer, shapes = model.get_input_embeddings(), []
    hook = layer.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    try:
        with torch.no_grad():
            model(input_ids=ids[None], attention_mask=torch.ones_like(ids[None]))
    finally:
        hook.remove()
    return layer if isinstance(layer, nn.Embedding) and shapes and shapes[0][:2] == (1, len(ids)) else None


@torch.no_grad()
def hidden_states(model: PreTrainedModel, ids: torch.Tensor) -> np.ndarray | None:
    """The top states of each direction of a recurrent network, (directions, T, H), which tokens of a word share.

    None for a network of another kind.
    """
    encoder = model.base_model
    stacks = [getattr(encoder, name, None) for name in ("forward_layers", "backward_layers")]
    if stacks[0] is None:
        return None
    states = encoder(input_ids=ids[None], attention_mask=torch.ones_like(ids[None])).last_hidden_state[0]
    return np.stack([each.cpu().numpy() for each in states.chunk(sum(stack is not None for stack in stacks), dim=-1)])


def _replace_words(
    ids: torch.Tensor, words: Sequence[int], present: torch.Tensor, replacement: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A text in which each word that is not `present` (W,) is one `replacement`, as word dropout makes it.

    Returns its tokens, and the place of the first token of each word, (W,).
    """
    kept: list[int] = []
    first: list[int] = []
    for token, word in zip(ids.tolist(), words, strict=True):
        is_new = word == len(first)
        if is_new:
            first.append(len(kept))
        if word < 0 or present[word]:
            kept.append(token)
        elif is_new:
            kept.append(replacement)
    return ids.new_tensor(kept), ids.new_tensor(first)
