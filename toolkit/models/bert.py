"""transformers' own BERT, whose masked language model computes at masked positions only what nothing else needs: the
queries and the feed-forward of its last layer, and its output layer.

Devlin, Chang, Lee & Toutanova (2019), https://arxiv.org/abs/1810.04805. Only the way to the loss differs: weights,
configuration and checkpoints are those of `transformers.BertForMaskedLM`, which opens them without this package.
"""

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.bert.modeling_bert import BertLayer

from .masked import LearnsToFillIn, MaskedLastLayer, Stack


class BertLastLayer(MaskedLastLayer, BertLayer):
    pass


class BertForMaskedLM(LearnsToFillIn, transformers.BertForMaskedLM):
    def __init__(self, config: transformers.BertConfig):
        super().__init__(config)
        self.bert.encoder.layer[-1].__class__ = BertLastLayer  # the same parameters, used otherwise

    @property
    def output_bias(self) -> nn.Parameter:
        return self.cls.predictions.bias

    @property
    def stacks(self) -> list[Stack]:
        return [Stack(None, self.bert.encoder.layer, self.config)]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs,
    ) -> MaskedLMOutput:
        """`input_ids` and `labels` (batch, time), labels -100 where nothing is masked. With labels, `logits` has one
        row a masked token, (masked, vocab_size), in reading order; without, one a token as in transformers.

        `sequence_ids` (batch, time) in place of `attention_mask` number the sequences that share a row, padding as one
        of them: each is read as if it stood alone.
        """
        kwargs |= self.attention_inputs(attention_mask, sequence_ids)
        if labels is None:
            return super().forward(input_ids, **kwargs)
        masked = labels != -100
        states = self.bert(input_ids, wanted=masked, **kwargs).last_hidden_state  # (masked, H)
        logits = self.cls(states)
        return MaskedLMOutput(loss=F.cross_entropy(logits, labels[masked]), logits=logits)
