"""transformers' own ELECTRA together with the generator that it is pretrained against.

Clark, Luong, Le & Manning (2020), "ELECTRA: pre-training text encoders as discriminators rather than generators",
https://arxiv.org/abs/2003.10555. The generator, a masked language model on the same embeddings, fills in what was
masked; the encoder says of every token whether it was there before. Without the generator, which only training needs,
a checkpoint is one of `transformers.ElectraForPreTraining`.
"""

import copy

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.electra.modeling_electra import (
    ElectraEncoder,
    ElectraForPreTrainingOutput,
    ElectraGeneratorPredictions,
    ElectraLayer,
)

from .masked import LearnsToFillIn, MaskedLastLayer, Stack


class ElectraLastLayer(MaskedLastLayer, ElectraLayer):
    pass


class ElectraGenerator(nn.Module):
    """A narrower encoder between the embeddings and the output layer, which are the discriminator's embeddings."""

    def __init__(self, config: transformers.ElectraConfig):
        super().__init__()
        self.config = copy.copy(config)
        self.config.hidden_size = max(64, round(config.hidden_size * config.generator_size / 64) * 64)
        self.config.num_attention_heads = self.config.hidden_size // 64
        self.config.intermediate_size = 4 * self.config.hidden_size
        self.embeddings_project = nn.Linear(config.embedding_size, self.config.hidden_size)
        self.encoder = ElectraEncoder(self.config)
        self.encoder.layer[-1].__class__ = ElectraLastLayer  # the same parameters, used otherwise
        self.predictions = ElectraGeneratorPredictions(self.config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, embedded, attention_mask, masked, output_weight) -> torch.Tensor:
        """`embedded` (batch, time, E), `masked` (batch, time), `output_weight` (V, E): logits (masked, V)."""
        mask = create_bidirectional_mask(self.config, embedded, attention_mask)
        states = self.encoder(self.embeddings_project(embedded), mask, wanted=masked).last_hidden_state
        return F.linear(self.predictions(states), output_weight, self.bias)


class ElectraForPreTraining(LearnsToFillIn, transformers.ElectraForPreTraining):
    """`config.generator_size` is the width of the generator as a share of the encoder's, rounded to whole heads of 64;
    `config.discriminator_weight` what a token's loss counts for beside a masked token's."""

    MASKED_SHARE = 0.15

    def __init__(self, config: transformers.ElectraConfig):
        super().__init__(config)
        self.generator = ElectraGenerator(config)
        self.post_init()

    @property
    def output_bias(self) -> nn.Parameter:
        return self.generator.bias

    @property
    def stacks(self) -> list[Stack]:
        projection = getattr(self.electra, "embeddings_project", None)  # none where no width changes
        return [
            Stack(projection, self.electra.encoder.layer, self.config),
            Stack(self.generator.embeddings_project, self.generator.encoder.layer, self.generator.config),
        ]

    def set_attn_implementation(self, *arguments, **kwargs) -> None:
        super().set_attn_implementation(*arguments, **kwargs)
        self.generator.config._attn_implementation = self.config._attn_implementation  # no model of transformers'

    def without_generator(self) -> "ElectraForPreTraining":
        """The same model, from now on a transformers' one: it can judge tokens and train no more."""
        del self.generator
        return self

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        uniforms: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs,
    ) -> ElectraForPreTrainingOutput:
        """`input_ids` and `labels` (batch, time), labels -100 where nothing is masked. With labels, `loss` is a mean
        over the tokens, padding aside: that of the discriminator, weighted, and that of the generator at each masked
        token, divided by the share that is usually masked. `uniforms` (batch, time), from 0 to 1, say which token the
        generator draws (default: drawn here). `sequence_ids` as for a `BertForMaskedLM`, padding being 0.

        `logits` (batch, time): the log odds that a token was replaced.
        """
        if attention_mask is None and sequence_ids is None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        kwargs |= self.attention_inputs(attention_mask, sequence_ids)
        if labels is None:
            return super().forward(input_ids, **kwargs)
        masked, real = labels != -100, attention_mask == 1 if sequence_ids is None else sequence_ids > 0
        embeddings = self.electra.embeddings
        embedded = embeddings(input_ids, position_ids=kwargs.get("position_ids"))
        guesses = self.generator(embedded, kwargs["attention_mask"], masked, embeddings.word_embeddings.weight)
        originals = labels[masked]
        generator_loss = F.cross_entropy(guesses, originals, reduction="sum")
        numbers = torch.rand(len(originals), device=guesses.device) if uniforms is None else uniforms[masked]
        drawn = draw(guesses.detach(), numbers)
        filled_in, is_replaced = input_ids.clone(), torch.zeros_like(masked)
        filled_in[masked], is_replaced[masked] = drawn, drawn != originals
        logits = super().forward(filled_in, **kwargs).logits
        discriminator_loss = F.binary_cross_entropy_with_logits(
            logits[real].float(), is_replaced[real].float(), reduction="sum"
        )
        weighted = generator_loss / self.MASKED_SHARE + self.config.discriminator_weight * discriminator_loss
        return ElectraForPreTrainingOutput(loss=weighted / real.sum(), logits=logits)


def draw(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """One of V with the probabilities that `logits` (n, V) say: the first at which they sum up to `uniforms` (n,)."""
    sums = logits.float().softmax(dim=-1).cumsum(dim=-1)
    return torch.searchsorted(sums, uniforms.unsqueeze(-1) * sums[:, -1:]).squeeze(-1).clamp(max=logits.shape[-1] - 1)
