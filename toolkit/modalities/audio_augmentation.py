"""Random changes of recordings and their spectrograms, determined by the key of each sample.

Masks of time and frequency are of Park et al. (2019), "SpecAugment", https://arxiv.org/abs/1904.08779; changes of
speed of Ko, Peddinti, Povey & Khudanpur (2015), "Audio augmentation for speech recognition",
https://www.isca-archive.org/interspeech_2015/ko15_interspeech.html; filters of Nam, Kim & Park (2022),
"FilterAugment", https://arxiv.org/abs/2110.03282; mixup of Zhang, Cisse, Dauphin & Lopez-Paz (2018),
https://arxiv.org/abs/1710.09412.

Shape legend: N samples of a recording, B recordings, T frames, M mel filters, C labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from toolkit.training.sampler import SampleKey

MOST_SPEED = 1.2  # and at least its reciprocal
MOST_SHIFT = 0.1  # of the window, by which a recording that fills it moves
SIGNAL_TO_NOISE = (5.0, 40.0)  # decibels
NUM_MASKS, WIDEST_MASK = 2, 0.15  # of each axis, and the share of the axis that a mask covers at most
NUM_POINTS, MOST_GAIN = 4, 0.5  # of a filter, and its gain in standard deviations of spectrograms
MIXUP_ALPHA = 0.2  # of the beta distribution of the share of the second recording


@dataclass(frozen=True)
class AudioAugmentation:
    """Changes recordings and what a model reads of them at random.

    Attributes:
        names: `shift`, `speed` and `noise` change recordings, `filter`, `mask` and `mixup` what the model reads.
        seed: Seed of all changes.
        view: Which of several changed versions of the same recordings this is.
    """

    names: Sequence[str]
    seed: int
    view: int = 0

    def of_view(self, view: int) -> "AudioAugmentation":
        """The same with other random numbers."""
        return replace(self, view=view)

    def change_samples(
        self, recordings: Sequence[np.ndarray], keys: Sequence[SampleKey], window: int
    ) -> list[np.ndarray]:
        """Change recordings (N,), of which a model reads `window` samples."""
        return [
            self._change(samples, self._generator(key, 0), window)
            for samples, key in zip(recordings, keys, strict=True)
        ]

    def change_inputs(
        self, inputs: dict[str, torch.Tensor], labels: torch.Tensor, keys: Sequence[SampleKey]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Change spectrograms (B, T, M), and with mixup labels (B,) to probabilities (B, C)."""
        values = inputs["input_values"]
        generators = [self._generator(key, 1) for key in keys]
        for name, change in (("filter", _filter), ("mask", _mask)):
            if name in self.names:
                pairs = zip(values, generators, strict=True)
                values = torch.stack([change(each, generator) for each, generator in pairs])
        if "mixup" in self.names:
            values, labels = _mix(values, labels, generators[0])
        return {**inputs, "input_values": values}, labels

    def _generator(self, key: SampleKey, stage: int) -> np.random.Generator:
        return np.random.default_rng((*key.seed(self.seed), self.view, stage))

    def _change(self, samples: np.ndarray, generator: np.random.Generator, window: int) -> np.ndarray:
        if "speed" in self.names and len(samples) > 1:
            speed = math.exp(generator.uniform(-1, 1) * math.log(MOST_SPEED))
            places = np.arange(0, len(samples) - 1, speed)
            samples = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
        if "shift" in self.names:
            space = window - len(samples)
            if space > 0:
                samples = np.pad(samples, (int(generator.integers(space + 1)), 0))
            else:
                most = round(MOST_SHIFT * window)
                by = int(generator.integers(-most, most + 1))
                samples = np.pad(samples, (max(by, 0), max(-by, 0)))[max(-by, 0) :][:window]
        if "noise" in self.names:
            decibels = generator.uniform(*SIGNAL_TO_NOISE)
            level = np.sqrt(np.square(samples).mean()) * 10 ** (-decibels / 20)
            samples = samples + (level * generator.standard_normal(len(samples))).astype(np.float32)
        return samples


def _filter(values: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Add a gain to each band of a spectrogram (T, M), as another microphone or room does."""
    bands = values.shape[1]
    gains = generator.uniform(-MOST_GAIN, MOST_GAIN, NUM_POINTS)
    curve = np.interp(np.arange(bands), np.linspace(0, bands - 1, NUM_POINTS), gains)
    return values + torch.from_numpy(curve).to(values.dtype)


def _mask(values: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Set bands of a spectrogram (T, M) to 0, the mean."""
    values = values.clone()
    for axis, size in enumerate(values.shape):
        for _ in range(NUM_MASKS):
            width = int(generator.integers(int(WIDEST_MASK * size) + 1))
            values.narrow(axis, int(generator.integers(size - width + 1)), width).zero_()
    return values


def _mix(
    values: torch.Tensor, labels: torch.Tensor, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each spectrogram and its label with those of another one of the batch."""
    others = torch.from_numpy(generator.permutation(len(values)))
    share = torch.from_numpy(generator.beta(MIXUP_ALPHA, MIXUP_ALPHA, len(values))).float()
    of_labels = F.one_hot(labels).float()
    values = torch.lerp(values, values[others], share[:, None, None])
    return values, torch.lerp(of_labels, of_labels[others], share[:, None])
