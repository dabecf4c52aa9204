"""Log-mel spectrograms: the feature extractor of models that read recordings.

A short-time Fourier transform with a Hann window, mel filters on its power, and the logarithm, normalized by the mean
and the standard deviation of the training data. The filters are those of HTK. `AutoFeatureExtractor` opens it.

Shape legend: B recordings, N samples, T frames, M mel filters, F frequencies.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import BatchFeature
from transformers.audio_utils import mel_filter_bank
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

LOWEST_HERTZ = 20.0  # of the filters; the highest frequency is half the sampling rate
LEAST_LEVEL = 1e-3  # root mean square that volume is normalized by at least, -60 dB
SILENCE = 0.01  # level of silence before and after the sound, relative to the loudest 10 ms: 40 dB below it


class LogMelFeatureExtractor(SequenceFeatureExtractor):
    """Makes log-mel spectrograms of one length: shorter recordings are followed by silence, longer ones are cut.

    Args:
        sampling_rate: Of the recordings, in Hz; None until the training data is known.
        max_seconds: Length of what is read of a recording; None until the training data is known.
        num_mel_bins: Number of mel filters, from 20 Hz to half the sampling rate.
        window_seconds: Length of a window.
        hop_seconds: Distance of the windows.
        mel_floor: Smallest power of a filter before the logarithm is taken.
        do_normalize: Whether each recording is divided by the root mean square of its samples other than 0.
        do_trim: Whether silence before and after the sound is removed.
        mean: Mean of the log-mel values of the training data; None until it is known.
        std: Their standard deviation.
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        sampling_rate: int | None = None,
        max_seconds: float | None = None,
        num_mel_bins: int = 64,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.01,
        mel_floor: float = 1e-4,
        do_normalize: bool = True,
        do_trim: bool = False,
        mean: float | None = None,
        std: float | None = None,
        **kwargs: Any,
    ):
        kwargs = {"feature_size": num_mel_bins, "padding_value": 0.0, "return_attention_mask": False, **kwargs}
        super().__init__(sampling_rate=sampling_rate, **kwargs)
        self.max_seconds, self.num_mel_bins, self.mel_floor = max_seconds, num_mel_bins, mel_floor
        self.window_seconds, self.hop_seconds = window_seconds, hop_seconds
        self.do_normalize, self.do_trim, self.mean, self.std = do_normalize, do_trim, mean, std

    @property
    def hop_length(self) -> int:
        """Samples between windows."""
        return max(1, round(self.hop_seconds * self.sampling_rate))

    @property
    def num_samples(self) -> int:
        """The samples that are read of a recording."""
        return max(1, round(self.max_seconds * self.sampling_rate))

    @property
    def max_length(self) -> int:
        """The frames of a spectrogram."""
        return 1 + self.num_samples // self.hop_length

    def level(self, samples: torch.Tensor) -> torch.Tensor:
        """A recording (N,) at the volume that is read."""
        if not self.do_normalize:
            return samples
        sound = samples[samples != 0]
        return samples / sound.square().mean().sqrt().clamp(min=LEAST_LEVEL) if len(sound) else samples

    def log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        """The spectrograms of recordings of one length, without normalization: (B, N) -> (B, T, M)."""
        length = max(2, round(self.window_seconds * self.sampling_rate))
        fft_length = 1 << (length - 1).bit_length()
        spectrum = torch.stft(
            samples,
            fft_length,
            self.hop_length,
            length,
            torch.hann_window(length),
            pad_mode="reflect" if samples.shape[1] > fft_length // 2 else "constant",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (B, F, T)
        filters = _mel_filters(fft_length, self.num_mel_bins, self.sampling_rate)
        return (power.transpose(1, 2) @ filters).clamp(min=self.mel_floor).log()

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        is_trimmed: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """Make spectrograms of a recording (N,), or of several: a list of them, or (B, N).

        With `is_trimmed`, silence has been removed already. Returns `input_values` (B, T, M). Raises `ValueError` if
        `sampling_rate` is another one than the model's, or the extractor has not been fitted to training data.
        """
        if self.mean is None:
            raise ValueError("the feature extractor has not been fitted to training data")
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"a sampling rate of {sampling_rate} Hz, expected {self.sampling_rate}; resample first")
        first = raw_speech[0]
        is_one = not hasattr(first, "__len__") or getattr(first, "ndim", 1) == 0
        recordings = [raw_speech] if is_one else raw_speech
        samples = torch.zeros(len(recordings), self.num_samples)
        for row, recording in zip(samples, recordings, strict=True):
            read = torch.as_tensor(recording, dtype=torch.float32)
            if self.do_trim and not is_trimmed:
                read = trim_silence(read, self.sampling_rate)
            read = self.level(read[: self.num_samples])
            row[: len(read)] = read
        values = (self.log_mel(samples) - self.mean) / self.std
        return BatchFeature({"input_values": values}).convert_to_tensors(return_tensors)


def trim_silence(samples: torch.Tensor, sampling_rate: int) -> torch.Tensor:
    """Samples (N,) without what is 40 dB below the loudest 10 ms, before and after the sound."""
    step = max(1, round(sampling_rate / 100))
    padded = nn.functional.pad(samples, (0, -len(samples) % step)).view(-1, step)
    level = padded.double().square().mean(dim=1).sqrt()
    loud = (level >= SILENCE * level.max()).nonzero().flatten().tolist() if len(level) else [0]
    return samples[loud[0] * step : (loud[-1] + 1) * step]


@lru_cache
def _mel_filters(fft_length: int, num_mel_bins: int, sampling_rate: int) -> torch.Tensor:
    """(F, M)"""
    filters = mel_filter_bank(
        num_frequency_bins=fft_length // 2 + 1,
        num_mel_filters=num_mel_bins,
        min_frequency=LOWEST_HERTZ,
        max_frequency=sampling_rate / 2,
        sampling_rate=sampling_rate,
    )
    return torch.from_numpy(filters).float()
