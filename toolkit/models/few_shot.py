"""A few-shot classifier as a model: an encoder, and how its features are compared with those of labelled examples.

Features are the mean of the encoder's last states over tokens or space. Prototypes: Snell, Swersky & Zemel (2017),
https://arxiv.org/abs/1703.05175. `toolkit.transfer.few_shot_classifier` learns and writes it.

Shape legend: B batch, T tokens, D features, P points, C classes.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention, SequenceClassifierOutput

from .elmo import ElmoConfig, ElmoModel
from .fasttext import FastTextConfig, FastTextModel
from .heads import copy_encoder_fields, encoder_from_config, pool_image_features
from .mlp import MlpConfig, MlpModel
from .pieces import mean_of_tokens
from .pooling import KNOWN_ENCODERS as POOLED_ENCODERS
from .pooling import PooledConfig, PooledModel
from .word2vec import Word2VecConfig, Word2VecModel

KNOWN_ENCODERS = (  # found here without the Auto classes, for a copy of this file on a Hub
    *POOLED_ENCODERS,
    (ElmoConfig, ElmoModel),
    (FastTextConfig, FastTextModel),
    (MlpConfig, MlpModel),
    (PooledConfig, PooledModel),
    (Word2VecConfig, Word2VecModel),
)


class FewShotConfig(PreTrainedConfig):
    """`encoder` is the configuration of the encoder, as a dictionary; of one that reads texts, `num_tokens` is the
    number of entries of its tokenizer. `metric` is cosine, euclidean, sqeuclidean or linear."""

    model_type = "toolkit-few-shot"

    encoder: dict[str, Any] | None = None
    hidden_size: int | None = None
    metric: str = "cosine"
    normalise: bool = True
    scale: float = 10.0
    num_points: int | None = None
    num_tokens: int | None = None

    def __post_init__(self, **kwargs):
        copy_encoder_fields(self, "vocab_size", "max_position_embeddings", "pad_token_id", "image_size")
        super().__post_init__(**kwargs)


class FewShotPreTrainedModel(PreTrainedModel):
    """The logit of a class is the largest of those of its points, which of a linear layer are the rows."""

    config_class = FewShotConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    classes: torch.Tensor  # (P,), the class of each point

    def __init__(self, config: FewShotConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = encoder or encoder_from_config(config.encoder, KNOWN_ENCODERS)
        self.mean = nn.Parameter(torch.zeros(config.hidden_size))
        self.points = nn.Parameter(torch.zeros(config.num_points, config.hidden_size))
        self.biases = nn.Parameter(torch.zeros(config.num_points))  # of distances zero
        self.register_buffer("classes", torch.arange(config.num_points) % self.num_labels)
        if config.num_tokens is not None:  # how much each counts in the mean, and whether it continues a word
            self.register_buffer("token_weights", torch.ones(config.num_tokens))
            self.register_buffer("continues", torch.zeros(config.num_tokens, dtype=torch.bool))
        self.post_init()

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B, C)"""
        placed = features - self.mean
        if self.config.normalise:
            placed = F.normalize(placed)
        if self.config.metric == "linear":
            alike = placed @ self.points.T
        elif self.config.metric == "cosine":
            alike = self.config.scale * F.normalize(placed) @ F.normalize(self.points).T
        else:
            distances = torch.cdist(placed, self.points, compute_mode="donot_use_mm_for_euclid_dist")
            alike = -distances if self.config.metric == "euclidean" else -distances.square()
        nothing = alike.new_full((len(alike), self.num_labels), float("-inf"))
        return nothing.scatter_reduce(1, self.classes.expand(alike.shape), alike + self.biases, "amax")


class FewShotForSequenceClassification(FewShotPreTrainedModel):
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """`input_ids` (B, T), `labels` (B,) -> `logits` (B, C), and `loss` with labels."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = self.logits(mean_of_tokens(states, input_ids, attention_mask, self.token_weights, self.continues))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class FewShotForImageClassification(FewShotPreTrainedModel):
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs
    ) -> ImageClassifierOutputWithNoAttention:
        """`pixel_values` (B, 3, S, S), `labels` (B,) -> `logits` (B, C), and `loss` with labels."""
        logits = self.logits(pool_image_features(self.encoder(pixel_values=pixel_values)))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)
