"""Fine-tune an encoder on a handful of labelled examples, before a linear probe is fitted to its features.

`contrastive` pulls examples of one class together: Tunstall et al. (2022), "Efficient few-shot learning without
prompts" (SetFit), https://arxiv.org/abs/2209.11055, with the supervised contrastive loss of Khosla et al. (2020),
https://arxiv.org/abs/2004.11362, over all pairs of a batch. `lp-ft` fits a linear probe and trains it on together with
the encoder: Kumar, Raghunathan, Jones, Ma & Liang (2022), "Fine-tuning can distort pretrained features",
https://arxiv.org/abs/2202.10054.

A batch holds some classes and some examples of each, as in Hermans, Beyer & Leibe (2017), "In defense of the triplet
loss", https://arxiv.org/abs/1703.07737. Each example passes the encoder once per step and is compared with all others
of the batch, so no list of pairs is ever in memory.

Shape legend: M examples of a batch, C classes, D features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from toolkit.models.families import family_of
from toolkit.models.simclr import info_nce_loss
from toolkit.training.arguments import TrainingArguments
from toolkit.training.inputs import TrainingData
from toolkit.training.loop import train
from toolkit.training.sampler import SampleKey
from toolkit.transfer.features import Featurizer

MAX_CLASSES_PER_BATCH, MIN_EXAMPLES_PER_BATCH = 24, 16
TEMPERATURE = 0.1
LEARNING_RATE, LEARNING_RATE_OF_WORD_VECTORS = 5e-5, 2e-2


def contrastive_loss(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The supervised contrastive loss of `features` (M, D): the mean over all pairs that share a class.

    `targets` (M, C) are 1 where an example belongs to a class.
    """
    is_positive = (targets @ targets.T > 0).fill_diagonal_(False)
    return info_nce_loss(features, is_positive, TEMPERATURE) if is_positive.any() else features.sum() * 0


@dataclass(frozen=True)
class CollateClasses:
    """Collates classes to a batch of `per_class` random examples of each."""

    featurizer: Featurizer
    rows: list[dict[str, Any]]  # encoded examples
    targets: np.ndarray  # (examples, C), True where an example belongs to a class
    per_class: int
    seed: int

    def __call__(self, rows: list[dict], keys: Sequence[SampleKey]) -> dict[str, Any]:
        chosen = set()
        for row, key in zip(rows, keys, strict=True):
            of_class = np.flatnonzero(self.targets[:, row["class"]])
            rng = np.random.default_rng(key.seed(self.seed))
            chosen |= set(rng.permutation(of_class)[: self.per_class].tolist())
        examples = sorted(chosen)
        encoded = [self.rows[example] for example in examples]
        inputs = self.featurizer.modality.collate(encoded, self.featurizer.processor)
        targets = torch.from_numpy(self.targets[examples]).float()
        return {**inputs, "targets": targets, "num_targets": len(examples), "num_items": len(examples)}


class EncoderWithLoss(PreTrainedModel):
    """The encoder of a featurizer, with the cross-entropy of a linear head or, without one, the contrastive loss.

    The cross-entropy is binary, of each class by itself, if an example may have several labels (`is_multi_label`).
    """

    _supports_sdpa = _supports_attention_backend = True  # whichever its encoder was loaded with

    def __init__(
        self, featurizer: Featurizer, transform, head: tuple[np.ndarray, np.ndarray] | None, is_multi_label: bool
    ):
        super().__init__(featurizer.model.config)
        self.encoder = featurizer.model
        self.pool, self.transform, self.head = featurizer.pool, transform, None
        self.is_multi_label = is_multi_label
        if head is not None:
            self.head = nn.Linear(*head[0].T.shape)
            self.head.weight.data, self.head.bias.data = (torch.from_numpy(part).float() for part in head)

    def forward(self, targets: torch.Tensor, **inputs: torch.Tensor) -> ModelOutput:
        features = self.pool(inputs)
        if self.head is None:
            return ModelOutput(loss=contrastive_loss(features, targets))
        logits = self.head(self.transform(features))
        if self.is_multi_label:
            return ModelOutput(loss=F.binary_cross_entropy_with_logits(logits, targets))
        return ModelOutput(loss=F.cross_entropy(logits, targets))


def tune(
    featurizer: Featurizer,
    items: Sequence[Any],
    targets: np.ndarray,
    max_steps: int,
    learning_rate: float | None,
    seed: int,
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    head: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Fine-tune the encoder of a featurizer, in place, on examples of the classes `targets` (examples, C).

    The seed is that of the batches and of dropout; the default learning rate depends on the kind of encoder. With
    `lp-ft`, `transform` gives the inputs of the head, and `head` is its initial weights (C, D) and biases (C,).
    """
    import datasets

    if learning_rate is None:
        family = family_of(featurizer.model.config.model_type)
        is_table = family is not None and family.first_word_id is not None
        learning_rate = LEARNING_RATE_OF_WORD_VECTORS if is_table else LEARNING_RATE
    num_classes = targets.shape[1]
    per_class = max(2, -(-MIN_EXAMPLES_PER_BATCH // num_classes))
    collate = CollateClasses(featurizer, featurizer.encode(items), targets, per_class, seed)
    batch_size = min(num_classes, MAX_CLASSES_PER_BATCH)
    arguments = TrainingArguments(max_steps=max_steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    classes = datasets.Dataset.from_dict({"class": list(range(num_classes))})
    model = EncoderWithLoss(featurizer, transform, head, is_multi_label=bool((targets.sum(axis=1) > 1).any()))
    train(model, TrainingData(classes, collate, item=featurizer.modality.name), arguments)
    featurizer.model.eval()
