"""transformers' BERT with a faster masked language model: it computes the queries and the feed-forward of the last
layer, and the output layer, at masked positions only.

Devlin, Chang, Lee & Toutanova (2019), "BERT: pre-training of deep bidirectional transformers for language
understanding", https://arxiv.org/abs/1810.04805. Weights, configuration and checkpoints are those of
`transformers.BertForMaskedLM`, which opens them without this package.
"""

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.bert.modeling_bert import BertLayer

from .masked_lm import MaskedLanguageModelMixin, MaskedLastLayer, replace_last_layer


class BertLastLayer(MaskedLastLayer, BertLayer):
    """The last layer of a BERT."""


class BertForMaskedLM(MaskedLanguageModelMixin, transformers.BertForMaskedLM):
    def __init__(self, config: transformers.BertConfig):
        super().__init__(config)
        replace_last_layer(self.bert.encoder.layer, BertLastLayer, config)

    @property
    def output_bias(self) -> nn.Parameter:
        return self.cls.predictions.bias

    @property
    def stacks(self) -> list[tuple[None, nn.ModuleList]]:
        return [(None, self.bert.encoder.layer)]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs,
    ) -> MaskedLMOutput:
        """Predict masked tokens. All inputs are (batch, time).

        Args:
            labels: -100 where nothing is masked.
            sequence_ids: Instead of `attention_mask`, the number of the sequence that each token belongs to, for
                several sequences in one row, each of which is read as if it were alone. Padding is one of them.

        Returns:
            With labels, the mean cross-entropy as `loss` and `logits` (masked, vocab_size) of the masked tokens in
            reading order; without labels, `logits` (batch, time, vocab_size).
        """
        kwargs |= self.attention_inputs(attention_mask, sequence_ids)
        if labels is None:
            return super().forward(input_ids, **kwargs)
        masked = labels != -100
        logits = self.cls(self.bert(input_ids, selected=masked, **kwargs).last_hidden_state)
        return MaskedLMOutput(loss=F.cross_entropy(logits, labels[masked]), logits=logits)
