"""ELECTRA: tell the tokens of a text from those that a small masked language model has put in their place.

Clark, Luong, Le & Manning (2020), "ELECTRA: pre-training text encoders as discriminators rather than generators",
https://arxiv.org/abs/2003.10555.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import check_positive
from toolkit.pretraining.bert import BertArguments, MaskTokens, piece_recipe, train_on_masked_windows
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run
from toolkit.pretraining.text_corpus import load_windows
from toolkit.runs.arguments import Arguments, defaults
from toolkit.training.sampler import SampleKey


@dataclass(kw_only=True)
class GeneratorArguments(Arguments):
    """objective"""

    generator_size: float | None = None
    """Width of the generator as a fraction of the encoder's (default: that of the preset, 1/4 to 1/2)."""
    discriminator_weight: float = 50.0
    """Weight of the discriminator's loss per token, relative to the generator's loss per masked token."""

    def check(self) -> None:
        check_positive(self, "generator_size discriminator_weight")


@dataclass(kw_only=True)
class ElectraArguments(BertArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="electra-mini")
    generator: GeneratorArguments = defaults(GeneratorArguments)


def pretrain_electra(arguments: ElectraArguments) -> dict[str, Any]:
    """Train an ELECTRA on windows of tokens; returns the record."""
    run = Run("electra", arguments)
    [tokenizer], rows = load_windows(run, piece_recipe)

    from toolkit.models.electra import ElectraForPreTraining

    config = run.preset.config(len(tokenizer))
    config.discriminator_weight = arguments.generator.discriminator_weight
    if arguments.generator.generator_size is not None:
        config.generator_size = arguments.generator.generator_size
    # The better the generator, the harder the discriminator's task: their summed loss does not tell the best weights.
    options: Any = {"better": None, "export": ElectraForPreTraining.without_generator}
    return train_on_masked_windows(run, ElectraForPreTraining, config, tokenizer, rows, ReplaceTokens, **options)


@dataclass
class ReplaceTokens(MaskTokens):
    """Like `MaskTokens`, but all chosen tokens become [MASK], and every token is a target of the discriminator.

    The batch also has `uniforms` (batch, time), the random numbers by which the generator samples its tokens. They
    depend on the sample only, not on how many processes share the step.
    """

    BECOMES_MASK, BECOMES_RANDOM = 1.0, 0.0

    def __call__(self, rows: list[dict], keys: list[SampleKey]) -> dict[str, Any]:
        import torch

        batch = super().__call__(rows, keys)
        uniforms = np.zeros(batch["labels"].shape, dtype=np.float32)
        for i, (row, key) in enumerate(zip(rows, keys, strict=True)):
            length = len(row["input_ids"])
            uniforms[i, :length] = np.random.default_rng((*key.seed(self.seed), 1)).random(length, np.float32)
        return batch | {"uniforms": torch.from_numpy(uniforms), "num_targets": batch["num_items"]}


METHOD = Method(ElectraArguments, pretrain_electra, piece_recipe)
