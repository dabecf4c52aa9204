"""Group subword pieces into words, and give word states back to the pieces.

Shape legend: B batch, P pieces, W words, H width of a state.
"""

import torch
from torch.nn import functional as F


def find_words(continues: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find words from the pieces that continue the word before them, `continues` (B, P), and the `mask` (B, P).

    Returns which pieces start a word, (B, P), as the first one always does; the index of the word of each piece,
    (B, P), for padding that of the last word; and the mask of words, (B, W).
    """
    starts = ~continues & mask
    starts[:, 0] = True
    word_index = starts.cumsum(dim=1) - 1
    num_words = word_index[:, -1:] + 1  # (B, 1)
    word_mask = torch.arange(int(num_words.max()), device=mask.device) < num_words
    return starts, word_index, word_mask


def gather_rows(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`states` (B, N, H) and `index` (B, M) -> (B, M, H) with `states[b, index[b, m]]`."""
    rows = index + states.shape[1] * torch.arange(len(states), device=index.device).unsqueeze(1)
    return F.embedding(rows, states.flatten(0, 1))  # faster than `gather`, which needs an index for every number


def reversal(mask: torch.Tensor) -> torch.Tensor:
    """For each place the one to read instead, so that a sequence is read backwards: `mask` (B, N) -> (B, N).

    Each sequence is reversed within its own length. Padding stays at the end, where it influences no state of a
    recurrent network before it, so that packed sequences are not needed.
    """
    lengths = mask.sum(dim=1, keepdim=True)  # (B, 1)
    positions = torch.arange(mask.shape[1], device=mask.device).expand(len(mask), -1)
    return torch.where(positions < lengths, lengths - 1 - positions, positions)


def mean_of_tokens(
    states: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    weights: torch.Tensor,
    continues: torch.Tensor,
) -> torch.Tensor:
    """The weighted mean over tokens: `states` (B, P, H), `input_ids` and `mask` (B, P) -> (B, H).

    A token has the weight of its entry of the vocabulary in `weights` (vocab_size,), unless the next token continues
    its word, by `continues` (vocab_size,) bool: then its weight is 1, or 0 if that of its entry is 0.
    """
    is_continued = F.pad(continues[input_ids][:, 1:], (0, 1))  # (B, P)
    of_entry = weights[input_ids]
    token_weights = (torch.where(is_continued & (of_entry > 0), 1.0, of_entry) * mask).unsqueeze(-1)  # (B, P, 1)
    return (states * token_weights).sum(dim=1) / token_weights.sum(dim=1).clamp(min=1e-9)
