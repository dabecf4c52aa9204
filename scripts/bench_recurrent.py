#!/usr/bin/env python
"""Compare recurrent layers: words per second of a training step, forward and backward.

    python scripts/bench_recurrent.py [ROUNDS]

Batches of 64 windows of 32 words, two layers of 256 units per direction, both directions, random input; all
alternatives take turns in one process. `toolkit.models.elmo` uses the last of `LAYERS`. The wide LSTMs have 1,024
cells, projected to 256, like the ELMo of the paper. Record: docs/results/bench_recurrent.json, in words per second.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from benchmarking import HAS_BFLOAT16, alternate, write_record
from torch import nn

BATCH_SIZE, WORDS, SIZE, WIDE, STEPS = 64, 32, 256, 1024, 5


class Stack(nn.Module):
    """Two recurrent layers. Each is followed by a linear layer if it is wider than `SIZE` and has no `proj_size`."""

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
    """Two LSTM layers made of `nn.LSTMCell`, which read one word at a time in Python."""

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


LAYERS: dict[str, Callable[[], nn.Module]] = {
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
    alternatives = {}
    dtypes = {", bf16": torch.bfloat16} if HAS_BFLOAT16 else {}
    for suffix, dtype in (dtypes | {"": torch.float32}).items():
        for name, new_layer in LAYERS.items():
            torch.manual_seed(0)
            alternatives[f"{name}{suffix}"] = partial(words_per_second, [new_layer(), new_layer()], dtype)
    head = {"unit": "words/s", "threads": torch.get_num_threads()}
    write_record("bench_recurrent", head | alternate(alternatives, rounds))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
