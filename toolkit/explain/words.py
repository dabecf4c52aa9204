"""Which words of a text count for what a model predicts, and the hidden states of recurrent networks.

Shape legend: T tokens of one text, W its words, K predicted values (logits), H width of a state.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from toolkit.errors import extra

NUM_STEPS = (64, 256, 1024)  # of the integral: more, while the sum over words misses what it must be
MOST_MISSED = 0.05  # of the difference of the logits
ROWS_AT_A_TIME = 32
Forward = Callable[[torch.Tensor], torch.Tensor]  # from token ids (N, T) to logits (N, K)


def occlusion(forward: Forward, ids: torch.Tensor, words: Sequence[int], replacement: int) -> np.ndarray:
    """How much each logit falls when the tokens of a word are replaced: (K, W).

    Zeiler & Fergus (2013), https://arxiv.org/abs/1311.2901, for texts Li, Monroe & Jurafsky (2016), "Understanding
    neural networks through representation erasure", https://arxiv.org/abs/1612.08220.

    Args:
        forward: Computes the logits.
        ids: (T,), the tokens.
        words: (T,), the word of each token, negative for special tokens.
        replacement: The token that stands for no word, such as [MASK] or [UNK].
    """
    with extra("explain"):
        from captum.attr import FeatureAblation

    groups, baseline = _groups(words), _without_words(ids, words, replacement)
    method = FeatureAblation(forward)
    of_logits = [
        method.attribute(
            ids[None],
            baselines=baseline[None],
            target=k,
            feature_mask=groups[None],
            perturbations_per_eval=ROWS_AT_A_TIME,
        )
        for k in range(forward(ids[None]).shape[1])
    ]
    # All tokens of a word have the value of the word.
    first = [list(words).index(word) for word in range(max(words) + 1)]
    return torch.cat(of_logits)[:, first].detach().cpu().numpy()


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

    method = LayerIntegratedGradients(forward, embeddings)
    baseline, groups = _without_words(ids, words, replacement), _groups(words)
    rows = []
    with torch.no_grad():
        differences = (forward(ids[None]) - forward(baseline[None]))[0].tolist()
    for k, difference in enumerate(differences):
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


def _groups(words: Sequence[int]) -> torch.Tensor:
    """The word of each token, with one more for special tokens."""
    return torch.tensor([max(words) + 1 if word < 0 else word for word in words])


def _without_words(ids: torch.Tensor, words: Sequence[int], replacement: int) -> torch.Tensor:
    """The text with `replacement` for all tokens but the special ones."""
    return torch.where(torch.tensor([word < 0 for word in words], device=ids.device), ids, replacement)
