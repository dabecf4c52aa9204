"""Recordings decoded: one channel, float32, at the sampling rate of a model. libsndfile reads them, soxr resamples."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolkit.errors import InputError, extra, first_line

NO_RATE = "SF_INFO struct incomplete"  # what libsndfile says of a sampling rate of 0
BLOCK_SECONDS, STEP_SECONDS = 60, 0.01
MP3_DELAY = 4 * 1152  # samples after a jump that depend on those before it: four frames
LEAST_DECODED = 0.99  # of the samples that the head of a file promises


class Head(NamedTuple):
    """What the head of a file says."""

    sampling_rate: int  # Hz
    seconds: float


def open_audio(audio: dict[str, Any], name: str, sampling_rate: int | None = None) -> np.ndarray:
    """Decode a recording to samples (N,) from -1 to 1: the mean of its channels, resampled to `sampling_rate` in Hz.

    `audio` has the `bytes` or the `path` of a file, and perhaps `start` and `stop` in seconds, of which no more is
    read. Raises `InputError`, which calls it `name`, if it is missing, empty or broken, or no recording.
    """
    with _opened(audio, name) as file:
        rate = file.samplerate
        samples = _read(file, *_range(file, audio), name)
    samples = samples if sampling_rate is None else resample(samples, rate, sampling_rate)
    if not len(samples):
        raise InputError(f"{name}: there is no sound in it, it holds no samples")
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: has samples that are no finite numbers")
    return samples


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Samples (N,) of one sampling rate in Hz at another one."""
    if rate == new_rate:
        return samples
    with extra("audio"):
        import soxr

    return soxr.resample(samples, rate, new_rate)


def head_of(audio: dict[str, Any], name: str) -> Head:
    """The sampling rate and the length of a recording. Raises `InputError` like `open_audio`."""
    with _opened(audio, name) as file:
        return Head(file.samplerate, file.frames / file.samplerate)


def sound_of(audio: dict[str, Any], name: str, silence: float) -> tuple[float, float]:
    """The beginning and the end in seconds of what is louder than `silence` times the loudest 10 ms, between `start`
    and `stop` of the recording if it has them.

    Reads a minute at a time. Raises `InputError` like `open_audio`.
    """
    levels = []
    with _opened(audio, name) as file:
        step = max(1, round(STEP_SECONDS * file.samplerate))
        block = BLOCK_SECONDS * 100 * step
        start, end = _range(file, audio)
        for first in range(start, end, block):
            samples = _read(file, first, min(end, first + block), name)
            padded = np.pad(samples, (0, -len(samples) % step)).reshape(-1, step)
            levels.append(np.sqrt(np.square(padded, dtype=np.float64).mean(axis=1)))
        rate = file.samplerate
    if not levels:
        raise InputError(f"{name}: there is no sound in it, it holds no samples")
    level = np.concatenate(levels)
    loud = np.flatnonzero(level >= silence * level.max())
    if not len(loud):
        raise InputError(f"{name}: has samples that are no finite numbers")
    return (start + loud[0] * step) / rate, min(end, start + (loud[-1] + 1) * step) / rate


def _range(file, audio: dict[str, Any]) -> tuple[int, int]:
    """The first sample that is to be read, and the one after the last."""
    start, stop = audio.get("start"), audio.get("stop")
    first = 0 if start is None else round(start * file.samplerate)
    return first, file.frames if stop is None else min(file.frames, round(stop * file.samplerate))


def _read(file, first: int, last: int, name: str) -> np.ndarray:
    """The samples of a `soundfile.SoundFile` from `first` to before `last`, the mean of its channels."""
    import soundfile

    early = min(first, MP3_DELAY if file.format == "MP3" else 0)
    try:
        file.seek(min(first - early, file.frames))
        samples = file.read(max(0, last - first + early), dtype="float32", always_2d=True).mean(axis=1)[early:]
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"{name}: this recording cannot be decoded ({_reason(error)})") from None
    if len(samples) < LEAST_DECODED * (last - first):
        raise InputError(f"{name}: ends early, {len(samples):,} of {last - first:,} samples can be decoded")
    return samples


def _opened(audio: dict[str, Any], name: str):
    """A `soundfile.SoundFile`."""
    with extra("audio"):
        import soundfile

    content, path = audio["bytes"], audio["path"]
    try:
        if (len(content) if content is not None else Path(path).stat().st_size) == 0:
            raise InputError(f"{name}: the file is empty, expected a recording")
        return soundfile.SoundFile(path if content is None else io.BytesIO(content))
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or first_line(error)})") from None
    except (soundfile.LibsndfileError, TypeError) as error:
        raise InputError(f"{name}: this is no recording that libsndfile can read ({_reason(error)})") from None


def _reason(error: BaseException) -> str:
    reason = first_line(error).rpartition(": ")[2].rstrip(".")
    return "it gives no sampling rate" if reason == NO_RATE else reason
