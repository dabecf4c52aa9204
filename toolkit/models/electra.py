"""transformers' ELECTRA with the generator that it is pretrained with.

Clark, Luong, Le & Manning (2020), "ELECTRA: pre-training text encoders as discriminators rather than generators",
https://arxiv.org/abs/2003.10555. The generator, a masked language model on the same embeddings, replaces masked
tokens; the discriminator, which is the encoder, predicts for every token whether it was replaced. Only pretraining
needs the generator; without it, a checkpoint is one of `transformers.ElectraForPreTraining`.
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

from .masked_lm import MaskedLanguageModelMixin, MaskedLastLayer, replace_last_layer


class ElectraLastLayer(MaskedLastLayer, ElectraLayer):
    """The last layer of the generator of an ELECTRA."""


class ElectraGenerator(nn.Module):
    """A narrower encoder on the embeddings of the discriminator, which are its output layer too."""

    def __init__(self, config: transformers.ElectraConfig):
        super().__init__()
        self.config = copy.copy(config)
        self.config.hidden_size = max(64, round(config.hidden_size * config.generator_size / 64) * 64)
        self.config.num_attention_heads = self.config.hidden_size // 64
        self.config.intermediate_size = 4 * self.config.hidden_size
        self.embeddings_project = nn.Linear(config.embedding_size, self.config.hidden_size)
        self.encoder = ElectraEncoder(self.config)
        replace_last_layer(self.encoder.layer, ElectraLastLayer, self.config)
        self.predictions = ElectraGeneratorPredictions(self.config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, embedded, attention_mask, masked, output_weight) -> torch.Tensor:
        """`embedded` (batch, time, E), `masked` (batch, time), `output_weight` (V, E) -> logits (masked, V)."""
        mask = create_bidirectional_mask(self.config, embedded, attention_mask)
        states = self.encoder(self.embeddings_project(embedded), mask, selected=masked).last_hidden_state
        return F.linear(self.predictions(states), output_weight, self.bias)


class ElectraForPreTraining(MaskedLanguageModelMixin, transformers.ElectraForPreTraining):
    """An ELECTRA with its generator.

    Two fields of its configuration are not in transformers' own: `generator_size`, the width of the generator as a
    fraction of the encoder's, rounded to whole heads of 64, and `discriminator_weight`, the weight of the
    discriminator's loss.
    """

    MASKED_SHARE = 0.15

    def __init__(self, config: transformers.ElectraConfig):
        super().__init__(config)
        self.generator = ElectraGenerator(config)
        self.post_init()

    @property
    def output_bias(self) -> nn.Parameter:
        return self.generator.bias

    @property
    def stacks(self) -> list[tuple[nn.Linear | None, nn.ModuleList]]:
        projection = getattr(self.electra, "embeddings_project", None)  # none if the widths are the same
        generator = self.generator
        return [(projection, self.electra.encoder.layer), (generator.embeddings_project, generator.encoder.layer)]

    def set_attn_implementation(self, *arguments, **kwargs) -> None:
        super().set_attn_implementation(*arguments, **kwargs)
        # transformers 5.24 sets it in configurations of `PreTrainedModel`s only (modeling_utils.py, line 2032).
        self.generator.config._attn_implementation = self.config._attn_implementation

    def without_generator(self) -> "ElectraForPreTraining":
        """Delete the generator: the model cannot be trained any more, and its checkpoint is one of transformers."""
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
        """Replace masked tokens by the generator's and predict which tokens were replaced.

        Args:
            labels: (batch, time) as all inputs: the original token of each masked one, else -100.
            uniforms: Random numbers from 0 to 1 that determine the generator's tokens; drawn here by default.
            sequence_ids: As for `BertForMaskedLM`, 0 for padding.

        Returns:
            `logits` (batch, time), the log odds that a token was replaced. With labels also `loss`, a mean over real
            tokens: the discriminator's loss, times its weight, plus the generator's, divided by the masked fraction.
        """
        if attention_mask is None and sequence_ids is None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        kwargs |= self.attention_inputs(attention_mask, sequence_ids)
        if labels is None:
            return super().forward(input_ids, **kwargs)
        masked, real = labels != -100, attention_mask == 1 if sequence_ids is None else sequence_ids > 0
        embeddings = self.electra.embeddings
        embedded = embeddings(input_ids, position_ids=kwargs.get("position_ids"))
        predicted = self.generator(embedded, kwargs["attention_mask"], masked, embeddings.word_embeddings.weight)
        originals = labels[masked]
        generator_loss = F.cross_entropy(predicted, originals, reduction="sum")
        numbers = torch.rand(len(originals), device=predicted.device) if uniforms is None else uniforms[masked]
        replacements = sample_tokens(predicted.detach(), numbers)
        replaced_ids, is_replaced = input_ids.clone(), torch.zeros_like(masked)
        replaced_ids[masked], is_replaced[masked] = replacements, replacements != originals
        logits = super().forward(replaced_ids, **kwargs).logits
        discriminator_loss = F.binary_cross_entropy_with_logits(
            logits[real].float(), is_replaced[real].float(), reduction="sum"
        )
        weighted = generator_loss / self.MASKED_SHARE + self.config.discriminator_weight * discriminator_loss
        return ElectraForPreTrainingOutput(loss=weighted / real.sum(), logits=logits)


def sample_tokens(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Sample one token (n,) per row of `logits` (n, V): where the cumulative distribution reaches `uniforms` (n,)."""
    sums = logits.float().softmax(dim=-1).cumsum(dim=-1)
    return torch.searchsorted(sums, uniforms.unsqueeze(-1) * sums[:, -1:]).squeeze(-1).clamp(max=logits.shape[-1] - 1)
