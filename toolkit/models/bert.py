"""transformers' own BERT, whose masked language model computes its output layer at masked positions only.

Devlin, Chang, Lee & Toutanova (2019), https://arxiv.org/abs/1810.04805. Only the way to the loss differs: weights,
configuration and checkpoints are those of `transformers.BertForMaskedLM`, which opens them without this package.
"""

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import MaskedLMOutput


class BertForMaskedLM(transformers.BertForMaskedLM):
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> MaskedLMOutput:
        """`input_ids` and `labels` (batch, time), labels -100 where nothing is masked. With labels, `logits` has one
        row a masked token, (masked, vocab_size), in reading order; without, one a token as in transformers."""
        if labels is None:
            return super().forward(input_ids, attention_mask, **kwargs)
        states = self.bert(input_ids, attention_mask, **kwargs).last_hidden_state  # (batch, time, hidden_size)
        masked = labels != -100
        logits = self.cls(states[masked])
        return MaskedLMOutput(loss=F.cross_entropy(logits, labels[masked]), logits=logits)

    def set_dropout(self, probability: float) -> None:
        """Of the modules, from now on; the configuration, which fine-tuning starts from, stays as it is."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability
