"""From pieces to words and back, for encoders that read pieces and whose states are of words.

Shape legend: B batch, P pieces, W words, H width of a state.
"""

import torch
from torch.nn import functional as F


def find_words(continues: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`continues` and `mask` (B, P): pieces that continue the word before them, and pieces that are not padding.

    Returns which pieces start a word (B, P), the word that each piece belongs to (B, P), and which words are real
    (B, W). The first piece always starts a word.
    """
    starts = ~continues & mask
    starts[:, 0] = True
    word_index = starts.cumsum(dim=1) - 1  # padding falls to the last word, whose state it shows but never changes
    num_words = word_index[:, -1:] + 1  # (B, 1)
    word_mask = torch.arange(int(num_words.max()), device=mask.device) < num_words
    return starts, word_index, word_mask


def gather_rows(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`states` (B, N, H), `index` (B, M) -> (B, M, H) with `states[b, index[b, m]]`."""
    rows = index + states.shape[1] * torch.arange(len(states), device=index.device).unsqueeze(1)
    return F.embedding(rows, states.flatten(0, 1))  # faster than gather, which takes an index of every number


def mean_of_tokens(
    states: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    weights: torch.Tensor,
    continues: torch.Tensor,
) -> torch.Tensor:
    """(B, H): the weighted mean of `states` (B, P, H) of `input_ids` (B, P), `mask` (B, P) being 0 for padding.

    Of each entry of the vocabulary `weights` (V,) says how much it counts, and `continues` (V,) whether it continues a
    word. An entry that is continued is a part of a word, and counts 1 if it counts at all.
    """
    continued = F.pad(continues[input_ids][:, 1:], (0, 1))  # (B, P)
    of_entry = weights[input_ids]
    counts = torch.where(continued & (of_entry > 0), 1.0, of_entry) * mask
    counts = counts.unsqueeze(-1)  # (B, P, 1)
    return (states * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1e-9)
