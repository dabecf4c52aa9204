"""The attention weights of a network."""

from typing import Any

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def attention_weights(model: PreTrainedModel, **inputs: Any) -> list[torch.Tensor]:
    """The attention weights of each layer for one example, (heads, tokens, tokens); empty for a network without any.

    For a sequence-to-sequence model its cross-attention, (heads, target tokens, source tokens).
    """
    before = model.config._attn_implementation  # no public getter: transformers 5.24, configuration_utils.py, line 595
    model.set_attn_implementation("eager")
    try:
        output = model(**inputs, output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    found = getattr(output, "cross_attentions", None) or getattr(output, "attentions", None) or ()
    return [layer[0].float().cpu() for layer in found]
