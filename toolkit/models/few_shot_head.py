"""A few-shot classifier as a `PreTrainedModel`: an encoder, and labelled points that its features are compared with.

`toolkit.transfer.few_shot_classifier` fits and saves it. Features are the mean of the encoder's last hidden states
over tokens or spatial positions.

Shape legend: B batch, T tokens, D features, P points, C classes.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention, SequenceClassifierOutput

from .class_logits import center_and_normalize, class_logits
from .elmo import ElmoModel
from .fasttext import FastTextModel
from .heads import copy_encoder_fields, encoder_from_config, pool_audio_features, pool_image_features
from .mlp import MlpModel
from .pooling import KNOWN_ENCODERS as POOLED_ENCODERS
from .pooling import PooledModel
from .rnn import RnnModel
from .spectrogram import SpectrogramModel
from .subwords import mean_of_tokens
from .word2vec import Word2VecModel

# Classes that a copy of this file on a Hub builds without the Auto classes.
KNOWN_ENCODERS = (
    *POOLED_ENCODERS,
    ElmoModel,
    FastTextModel,
    MlpModel,
    PooledModel,
    RnnModel,
    SpectrogramModel,
    Word2VecModel,
)


class FewShotConfig(PreTrainedConfig):
    """Configuration of a few-shot classifier; `encoder` is that of the encoder, as a dictionary."""

    model_type = "toolkit-few-shot"

    encoder: dict[str, Any] | None = None
    hidden_size: int | None = None  # number of features
    metric: str = "cosine"  # or euclidean, sqeuclidean, linear
    normalize: bool = True  # whether centered features are scaled to unit length
    scale: float = 10.0  # factor of cosines
    num_points: int | None = None  # labelled points
    num_tokens: int | None = None  # vocabulary size of the tokenizer; None for images and recordings

    def __post_init__(self, **kwargs):
        copy_encoder_fields(self, "vocab_size", "max_position_embeddings", "pad_token_id", "image_size")
        super().__post_init__(**kwargs)


class FewShotPreTrainedModel(PreTrainedModel):
    """An encoder with points; `class_logits` says how features are compared with them."""

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
        self.biases = nn.Parameter(torch.zeros(config.num_points))  # zero unless the metric is `linear`
        self.register_buffer("classes", torch.arange(config.num_points) % self.num_labels)
        if config.num_tokens is not None:  # the weight of each token in the mean, and whether it continues a word
            self.register_buffer("token_weights", torch.ones(config.num_tokens))
            self.register_buffer("continues", torch.zeros(config.num_tokens, dtype=torch.bool))
        self.post_init()

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B, C)"""
        features = center_and_normalize(features, self.mean, self.config.normalize)
        compared = self.points, self.classes, self.num_labels, self.config.metric, self.config.scale, self.biases
        return class_logits(features, *compared)


class FewShotForSequenceClassification(FewShotPreTrainedModel):
    def features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (B, D)"""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.pool(states, input_ids, attention_mask)

    def pool(self, states: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """`states` (B, T, D), `input_ids` and `attention_mask` (B, T) -> (B, D)"""
        return mean_of_tokens(states, input_ids, attention_mask, self.token_weights, self.continues)

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
        logits = self.logits(self.features(input_ids, attention_mask))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class FewShotForImageClassification(FewShotPreTrainedModel):
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) -> (B, D)"""
        return pool_image_features(self.encoder(pixel_values=pixel_values))

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs
    ) -> ImageClassifierOutputWithNoAttention:
        """`pixel_values` (B, 3, S, S), `labels` (B,) -> `logits` (B, C), and `loss` with labels."""
        logits = self.logits(self.features(pixel_values))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


class FewShotForAudioClassification(FewShotPreTrainedModel):
    main_input_name = "input_values"
    input_modalities = ("audio",)

    def features(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, M) or (B, N) -> (B, D)"""
        mask = {} if attention_mask is None else {"attention_mask": attention_mask}
        return pool_audio_features(self.encoder, self.encoder(input_values, **mask), attention_mask)

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """Spectrograms (B, T, M), or samples (B, N) and their mask, and `labels` (B,) -> `logits` (B, C), and `loss`
        with labels."""
        logits = self.logits(self.features(input_values, attention_mask))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)
