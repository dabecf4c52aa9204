"""How an encoder of a modality is loaded and its inputs are augmented: flags shared by pretraining and tasks.

Imports nothing heavy.
"""

from dataclasses import dataclass, field
from typing import Literal

from toolkit.errors import InputError, check_between_0_and_1, check_positive, check_share
from toolkit.runs.arguments import Arguments

ImageChange = Literal["flip", "shift", "zoom", "rotate", "color", "trivial", "erase"]
AudioChange = Literal["shift", "speed", "noise", "filter", "mask", "mixup"]


@dataclass(kw_only=True)
class TextEncoderArguments(Arguments):
    """encoder"""

    tokenizer: str | None = None
    """Tokenizer of a scratch preset (default: one is trained on the training data)."""
    layers: Literal["top", "mix"] | None = None
    """What the head reads of an encoder of transformers, such as BERT: its top layer, as transformers' heads do, or a
    learned mix of all layers, as in ELMo (default: mix if the encoder is frozen, else top)."""


@dataclass(kw_only=True)
class ImageEncoderArguments(Arguments):
    """encoder"""

    image_size: int | None = None
    """Resize all images to this height and width (default: that of the preset or encoder)."""
    pooling: Literal["max", "average", "l2", "gem"] | None = None
    """Global pooling of a convolutional network's feature maps: maximum, mean, 1/n · sqrt(Σ h²), or generalized mean
    with a learned exponent (default: the network's own)."""
    keep_size: bool = False
    """Do not resize images; requires --pooling."""
    background: str | None = None
    """Color that transparent parts of images become, a name or #rrggbb (default: that of the encoder, or white)."""

    def check(self) -> None:
        check_positive(self, "image_size")
        if self.keep_size and self.image_size:
            raise InputError("--keep_size: does not go with --image_size")


@dataclass(kw_only=True)
class AudioEncoderArguments(Arguments):
    """encoder"""

    sampling_rate: int | None = None
    """Resample recordings to this rate in Hz (default: the encoder's; of a new one the lowest in the training data, at
    most 16000)."""
    num_mel_bins: int | None = None
    """Mel filters of the spectrograms of a new network (default: 64)."""
    max_seconds: float | None = None
    """Longer recordings are cut into windows of this length, whose predictions are averaged (default: the encoder's;
    for a new one long enough for 99 of 100 training recordings, at most 10)."""
    image_size: int | None = None
    """Resize the spectrograms that an image encoder reads to this height and width (default: only if it needs one
    size)."""
    trim_silence: bool = False
    """Remove silence before and after the sound: what is 40 dB below the loudest part."""

    def check(self) -> None:
        check_positive(self, "sampling_rate num_mel_bins max_seconds image_size")


@dataclass(kw_only=True)
class LossArguments(Arguments):
    """augmentation and loss"""

    label_smoothing: float = 0.0
    """Label smoothing."""
    class_weights: bool = False
    """Weight classes inversely to their frequency."""

    def check(self) -> None:
        check_share(self, "label_smoothing")


@dataclass(kw_only=True)
class AudioAugmentationArguments(LossArguments):
    """augmentation and loss"""

    augment: list[AudioChange] = field(default_factory=lambda: ["shift", "speed", "noise", "mask"])
    """Random changes to training recordings: shift (in time), speed (with the pitch), noise, filter (a gain of each
    band of frequency, like that of another microphone), mask (SpecAugment: bands of time and frequency), mixup (mix
    pairs of recordings of a batch, and their labels; then the number of processes matters). Without a value: none."""


@dataclass(kw_only=True)
class AugmentationArguments(LossArguments):
    """augmentation and loss"""

    augment: list[ImageChange] = field(default_factory=lambda: ["shift"])
    """Random changes to training images: flip (left to right), shift, zoom, rotate, color, trivial (TrivialAugment),
    erase (a rectangle). Without a value: none."""
    max_shift: float = 0.125
    """Fraction of its size by which `shift` moves an image at most."""
    image_size_start: int | None = None
    """Progressive resizing: start training with images of this size and reach full size at three quarters of the
    run."""

    def check(self) -> None:
        check_positive(self, "image_size_start")
        check_between_0_and_1(self, "max_shift")
