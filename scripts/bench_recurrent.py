#!/usr/bin/env python
"""Which recurrent layer is the fastest on this machine: one step of training, forwards and backwards, of each.

    python scripts/bench_recurrent.py [ROUNDS]

Batches of 64 windows of 32 words, two layers of 256 a direction, both directions, with random input, in turns in one
process. `toolkit.models.elmo` is built of the last. The paper's ELMo has cells that are wider than what they hand on:
of 1,024 here, projected to 256. Record: docs/results/bench_recurrent.json, in words a second.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from alternation import alternate, write
from torch import nn

from toolkit.training.distributed import knows_bfloat16

BATCH_SIZE, WORDS, SIZE, WIDE, STEPS = 64, 32, 256, 1024, 5


class Stack(nn.Module):
    """Two layers of a kind, each followed by a linear one where it is wider than `SIZE`."""

    def __init__(self, kind: type[nn.RNNBase], width: int = SIZE, batch_first: bool = True, **settings: int):
        super().__init__()
        settings["batch_first"] = batch_first
        self.layers = nn.ModuleList(kind(SIZE, width, **settings) for _ in range(2))
        is_wider = width > SIZE and "proj_size" not in settings
        self.projections = nn.ModuleList(nn.Linear(width, SIZE) if is_wider else nn.Identity() for _ in range(2))
        self.batch_first = batch_first

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        words = words if self.batch_first else words.transpose(0, 1)
        for layer, projection in zip(self.layers, self.projections, strict=True):
            words = projection(layer(words)[0])
        return words


class Cells(nn.Module):
    """The same from `nn.LSTMCell`, a word at a time in Python."""

    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList(nn.LSTMCell(SIZE, SIZE) for _ in range(2))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        for cell in self.cells:
            states, state = [], None
            for word in words.unbind(1):
                state = cell(word, state)
                states.append(state[0])
            words = torch.stack(states, dim=1)
        return words


KINDS: dict[str, Callable[[], nn.Module]] = {
    "LSTM, time first": partial(Stack, nn.LSTM, batch_first=False),
    "LSTM of cells in Python": Cells,
    "GRU": partial(Stack, nn.GRU),
    "wide LSTM, proj_size": partial(Stack, nn.LSTM, WIDE, proj_size=SIZE),
    "wide LSTM, linear layer": partial(Stack, nn.LSTM, WIDE),
    "LSTM": partial(Stack, nn.LSTM),
}


def words_per_second(directions: list[nn.Module], dtype: torch.dtype) -> float:
    words = torch.randn(BATCH_SIZE, WORDS, SIZE)
    times = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = sum(direction(words).float().square().mean() for direction in directions)
        loss.backward()
        times.append(time.perf_counter() - start)
    return BATCH_SIZE * WORDS * STEPS / sum(times[1:])


def main(rounds: int = 3) -> None:
    ways = {}
    dtypes = {", bf16": torch.bfloat16} if knows_bfloat16(torch.device("cpu")) else {}
    for suffix, dtype in (dtypes | {"": torch.float32}).items():
        for name, kind in KINDS.items():
            torch.manual_seed(0)
            ways[f"{name}{suffix}"] = partial(words_per_second, [kind(), kind()], dtype)
    write("bench_recurrent", {"unit": "words/s", "threads": torch.get_num_threads()} | alternate(ways, rounds))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
