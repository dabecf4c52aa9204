"""Replaced token detection: say of every token whether a small masked language model has put it there.

Clark, Luong, Le & Manning (2020), "ELECTRA: pre-training text encoders as discriminators rather than generators",
https://arxiv.org/abs/2003.10555.
"""

from dataclasses import dataclass

import numpy as np
import torch

from toolkit.pretraining.masked_lm import MaskTokens
from toolkit.training.batches import Batch, Draw, seed_of


@dataclass
class ReplaceTokens(MaskTokens):
    """As `MaskTokens`, but all targets become [MASK], and every token is a target of the encoder's: a batch also has
    `uniforms` (batch, time), by which the generator draws what it puts there, of each example the same however many
    processes share a step."""

    FATES = (1.0, 1.0)

    def __call__(self, rows: list[dict], draws: list[Draw]) -> Batch:
        batch = super().__call__(rows, draws)
        uniforms = np.zeros(batch["labels"].shape, dtype=np.float32)
        for i, (row, draw) in enumerate(zip(rows, draws, strict=True)):
            length = len(row["input_ids"])
            uniforms[i, :length] = np.random.default_rng((*seed_of(self.seed, draw), 1)).random(length, np.float32)
        return batch | {"uniforms": torch.from_numpy(uniforms), "num_targets": batch["num_items"]}
