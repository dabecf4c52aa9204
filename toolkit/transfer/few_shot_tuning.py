"""Fine-tune an encoder on a handful of labelled examples, before a linear head is fitted to its features.

`contrastive`: examples of one class are to lie nearer to each other than to others. Tunstall et al. (2022), "Efficient
few-shot learning without prompts" (SetFit), https://arxiv.org/abs/2209.11055, do it with pairs; here each pair of one
class is told from all pairs of a step, by the loss of Khosla et al. (2020), "Supervised contrastive learning",
https://arxiv.org/abs/2004.11362. `lp-ft`: a linear head is fitted first and then learns on together with the encoder,
Kumar, Raghunathan, Jones, Ma & Liang (2022), "Fine-tuning can distort pretrained features",
https://arxiv.org/abs/2202.10054.

A step takes some classes and some examples of each, as Hermans, Beyer & Leibe (2017), "In defense of the triplet
loss", https://arxiv.org/abs/1703.07737, do. Each example goes through the encoder once and meets every other one: of
m examples m (m - 1) / 2 pairs, no pair twice, and never more of them in memory than those of a step.

Shape legend: M examples of a step, C classes, D features.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from toolkit.models.simclr import info_nce_loss
from toolkit.training.arguments import TrainingArguments
from toolkit.training.loop import train
from toolkit.training.sampler import SampleKey
from toolkit.transfer.features import Featurizer

CLASSES_OF_A_STEP, FEWEST_EXAMPLES_OF_A_STEP = 24, 16
TEMPERATURE = 0.1
RATE, RATE_OF_WORD_VECTORS = 5e-5, 2e-2


def contrastive_loss(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`features` (M, D), `targets` (M, C), ones where an example is of a class: the mean over the pairs that share a
    class of minus the log of the second one's share among all others, by the cosine to the first."""
    alike = (targets @ targets.T > 0).fill_diagonal_(False)
    return info_nce_loss(features, alike, TEMPERATURE) if alike.any() else features.sum() * 0


@dataclass(frozen=True)
class CollateClasses:
    """Rows with a `class` to a batch of some examples of each."""

    featurizer: Featurizer
    rows: list[dict[str, Any]]  # of examples
    targets: np.ndarray  # (examples, C)
    per_class: int
    seed: int

    def __call__(self, rows: list[dict], keys: Sequence[SampleKey]) -> dict[str, Any]:
        chosen = set()
        for row, key in zip(rows, keys, strict=True):
            of_class = np.flatnonzero(self.targets[:, row["class"]])
            rng = np.random.default_rng(key.seed(self.seed))
            chosen |= set(rng.permutation(of_class)[: self.per_class].tolist())
        examples = sorted(chosen)
        inputs = self.featurizer.modality.collate(
            [self.rows[example] for example in examples], self.featurizer.processor
        )
        targets = torch.from_numpy(self.targets[examples]).float()
        return {**inputs, "targets": targets, "num_targets": len(examples), "num_items": len(examples)}


class Tuned(PreTrainedModel):
    """The encoder of a featurizer with a loss; with a `head`, (weights (C, D), biases (C,)), that of its logits."""

    _supports_sdpa = _supports_attention_backend = True  # whatever its encoder was loaded with

    def __init__(self, featurizer: Featurizer, place, head: tuple[np.ndarray, np.ndarray] | None):
        super().__init__(featurizer.model.config)
        self.encoder = featurizer.model
        self.pool, self.place, self.head = featurizer.pool, place, None
        if head is not None:
            self.head = nn.Linear(*head[0].T.shape)
            self.head.weight.data, self.head.bias.data = (torch.from_numpy(part).float() for part in head)

    def forward(self, targets: torch.Tensor, **inputs: torch.Tensor) -> ModelOutput:
        features = self.pool(inputs)
        if self.head is None:
            return ModelOutput(loss=contrastive_loss(features, targets))
        logits = self.head(self.place(features))
        if (targets.sum(dim=1) > 1).any():
            return ModelOutput(loss=F.binary_cross_entropy_with_logits(logits, targets))
        return ModelOutput(loss=F.cross_entropy(logits, targets))


def tune(
    featurizer: Featurizer,
    items: Sequence[Any],
    targets: np.ndarray,
    *,
    max_steps: int,
    learning_rate: float | None,
    seed: int,
    place=None,
    head: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Change the encoder of `featurizer` by the examples `items`, whose `targets` are (examples, C), 0 or 1.

    Without a `head` by contrast, else by that linear head on what `place` makes of features.
    """
    import datasets

    if learning_rate is None:
        learning_rate = RATE_OF_WORD_VECTORS if featurizer.has_static_vectors else RATE
    num_classes = targets.shape[1]
    per_class = max(2, -(-FEWEST_EXAMPLES_OF_A_STEP // num_classes))
    collate = CollateClasses(featurizer, featurizer.encode(items), targets, per_class, seed)
    arguments = TrainingArguments(
        max_steps=max_steps,
        batch_size=min(num_classes, CLASSES_OF_A_STEP),
        learning_rate=learning_rate,
        seed=seed,
    )
    classes = datasets.Dataset.from_dict({"class": list(range(num_classes))})
    with tempfile.TemporaryDirectory() as folder:
        train(
            Tuned(featurizer, place, head),
            classes,
            collate,
            arguments,
            folder,
            item=featurizer.modality.name,
        )
    featurizer.model.eval()
