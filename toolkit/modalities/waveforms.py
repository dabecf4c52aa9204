"""From recordings to model inputs: decoded once, then changed at random and made spectrograms batch by batch.

A feature extractor, of transformers or of log-mel spectrograms, says at which sampling rate recordings are read and
what a model reads of them.

Shape legend: N samples of a recording, B recordings, T frames, M mel filters.
"""

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from toolkit.data.audio_decoding import head_of, open_audio, sound_of
from toolkit.errors import InputError, first_line
from toolkit.hub.download import local_copy
from toolkit.modalities.audio_augmentation import AudioAugmentation
from toolkit.models.log_mel import SILENCE, LogMelFeatureExtractor
from toolkit.training.sampler import SampleKey

NUM_MEASURED = 1000  # recordings that a new feature extractor is fitted to
MOST_HERTZ, MOST_SECONDS, MOST_RECORDINGS = 16_000, 10.0, 0.99  # of a new feature extractor
READ_TOGETHER = 64  # windows
FRAMES_PER_SECOND = 100  # of transformers' audio spectrogram transformer
_FIELDS = ("samples", "label", "index", "part", "size")


def new_feature_extractor(options: Any) -> LogMelFeatureExtractor:
    """A log-mel feature extractor that has not been fitted to data; `options` are `AudioEncoderArguments`."""
    sizes = {} if options.num_mel_bins is None else {"num_mel_bins": options.num_mel_bins}
    return LogMelFeatureExtractor(options.sampling_rate, options.max_seconds, do_trim=options.trim_silence, **sizes)


def load_feature_extractor(source: str, options: Any):
    """The feature extractor in a folder or on a Hub, with the length that the flags say. Raises `InputError`."""
    from transformers import AutoFeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(local_copy(source), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: reads no recordings ({first_line(error)})") from None
    if not getattr(extractor, "sampling_rate", None):
        raise InputError(f"{source}: reads no recordings ({type(extractor).__name__})")
    extractor.__dict__.pop("auto_map", None)  # a model that is saved with it does not come with that code
    for name in ("sampling_rate", "num_mel_bins"):
        value, trained = getattr(options, name), getattr(extractor, name, None)
        if value not in (None, trained):
            there = "reads samples, not spectrograms" if trained is None else f"was trained with {trained}"
            raise InputError(f"--{name} {value}: {source} {there}")
    if options.max_seconds is not None:
        extractor.max_seconds = options.max_seconds
    if options.trim_silence:
        extractor.do_trim = True
    return extractor


def is_fitted(extractor) -> bool:
    """Whether a feature extractor can be used, which a new one cannot be before it has seen data."""
    return getattr(extractor, "mean", 0.0) is not None


def reads_spectrograms(extractor) -> bool:
    """Whether a feature extractor makes spectrograms, rather than leave the samples as they are."""
    return getattr(extractor, "num_mel_bins", None) is not None


def fit_feature_extractor(extractor: LogMelFeatureExtractor, rows: Sequence[dict[str, Any]]) -> None:
    """Take sampling rate, length, mean and standard deviation from up to 1,000 recordings, where they are not given.

    A row has `audio` and `name`. Raises `InputError` if a recording cannot be opened.
    """
    chosen = _some(rows)
    if extractor.sampling_rate is None:
        rates = (head_of(row["audio"], row["name"]).sampling_rate for row in chosen)
        extractor.sampling_rate = min(MOST_HERTZ, *rates)
    if extractor.max_seconds is None:
        extractor.max_seconds = usual_length(extractor, chosen)
    count, sums = 0, torch.zeros(2, dtype=torch.float64)
    for row in chosen:
        start, stop = _span(row, extractor)
        samples = _read(row, (start, min(stop, start + extractor.max_seconds)), extractor)
        values = extractor.log_mel(extractor.level(torch.from_numpy(samples))[None]).double()
        count, sums = count + values.numel(), sums + torch.stack([values.sum(), values.square().sum()])
    mean, square = (sums / count).tolist()
    extractor.mean, extractor.std = round(mean, 4), max(0.01, round((square - mean**2) ** 0.5, 4))


def usual_length(extractor, rows: Sequence[dict[str, Any]]) -> float:
    """The seconds of 99 of 100 recordings, at most 10, from up to 1,000 of them."""
    spans = (_span(row, extractor) for row in _some(rows))
    seconds = np.quantile([stop - start for start, stop in spans], MOST_RECORDINGS)
    return max(0.01, float(np.ceil(100 * min(MOST_SECONDS, seconds)) / 100))


def _some(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[place] for place in range(0, len(rows), max(1, -(-len(rows) // NUM_MEASURED)))]


def window_of(extractor) -> float:
    """How many seconds a model reads at once."""
    seconds = getattr(extractor, "max_seconds", None) or MOST_SECONDS
    if isinstance(extractor, LogMelFeatureExtractor) or not getattr(extractor, "max_length", None):
        return seconds
    return min(seconds, extractor.max_length / FRAMES_PER_SECOND)


def samples_in_window(extractor) -> int:
    """How many samples a model reads at once."""
    return round(window_of(extractor) * extractor.sampling_rate)


def model_inputs(extractor, recordings: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """What a model reads of recordings, each (N,): `input_values`, (B, T, M) or (B, N).

    Samples are padded to the longest recording if the model gets a mask of them, else to the length that it reads at
    once, so that the other recordings of a batch do not matter.
    """
    call = partial(extractor, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    if isinstance(extractor, LogMelFeatureExtractor):
        return dict(call(list(recordings), is_trimmed=True))
    if reads_spectrograms(extractor):
        return dict(call(list(recordings)))
    if extractor.return_attention_mask:
        return dict(call(list(recordings), padding=True))
    length = samples_in_window(extractor)
    each = [call(samples)["input_values"][0] for samples in recordings]
    return {"input_values": torch.stack([torch.nn.functional.pad(one, (0, length - len(one))) for one in each])}


def encode_audio(rows, extractor, label2id: dict[str, int], num_windows: int | None = None) -> datasets.Dataset:
    """Decode recordings, rows with `audio` and `name`, in windows of at most the length that the model reads.

    With `num_windows`, no more than the first of each recording.

    Returns a row for each window, with `samples` (the bytes of float32 values), `size` (their number), `label` (the
    id, or -100 without one), `index` of the recording, and `part`, the number of the window. They are in a file on
    disk as long as the data set exists. Raises `InputError` if a recording cannot be opened.
    """
    from datasets.arrow_writer import ArrowWriter

    labels = rows["label"][:] if "label" in getattr(rows, "column_names", ()) else None
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    features = {name: datasets.Value("binary" if name == "samples" else "int64") for name in _FIELDS}
    path = str(Path(folder.name) / "encoded.arrow")
    with ArrowWriter(features=datasets.Features(features), path=path, writer_batch_size=READ_TOGETHER) as writer:
        for index, part, samples in _read_windows(rows, extractor, num_windows):
            label = -100 if labels is None else label2id.get(labels[index], -100)
            values = samples.tobytes(), label, index, part, len(samples)
            writer.write(dict(zip(_FIELDS, values, strict=True)))
        writer.finalize()
    encoded = datasets.Dataset.from_file(path)
    weakref.finalize(encoded, folder.cleanup)
    return encoded


def _read_windows(rows, extractor, num_windows: int | None) -> Iterator[tuple[int, int, np.ndarray]]:
    """The index of each recording, the number of each of its windows, and its samples, read in threads."""
    seconds = window_of(extractor)

    def places() -> Iterator[tuple[int, dict[str, Any], int, tuple[float, float]]]:
        for index, row in enumerate(rows):
            for part, window in enumerate(windows(*_span(row, extractor), seconds)[:num_windows]):
                yield index, row, part, window

    def read(place: tuple[int, dict[str, Any], int, tuple[float, float]]) -> tuple[int, int, np.ndarray]:
        index, row, part, window = place
        return index, part, _read(row, window, extractor)

    waiting = places()
    with ThreadPoolExecutor() as pool:  # libsndfile and soxr release the GIL
        while some := list(islice(waiting, READ_TOGETHER)):
            yield from pool.map(read, some)


def windows(start: float, stop: float, seconds: float) -> list[tuple[float, float]]:
    """As few windows of a length in seconds as cover the time from `start` to `stop`, evenly spaced; one if it is
    shorter."""
    rest = stop - start - seconds
    if rest <= 1e-6:
        return [(start, stop)]
    starts = np.linspace(start, start + rest, 1 + int(np.ceil(rest / seconds - 1e-6))).tolist()
    return [(first, first + seconds) for first in starts]


def _span(row: dict[str, Any], extractor) -> tuple[float, float]:
    """The beginning and the end in seconds of what is read of a recording."""
    audio, name = row["audio"], row["name"]
    if getattr(extractor, "do_trim", False):
        return sound_of(audio, name, SILENCE)
    if audio.get("start") is not None:
        return audio["start"], audio["stop"]
    return 0.0, head_of(audio, name).seconds


def _read(row: dict[str, Any], window: tuple[float, float], extractor) -> np.ndarray:
    """The samples (N,) of a window, no more than a model reads at once."""
    part = {**row["audio"], "start": window[0], "stop": window[1]}
    return open_audio(part, row["name"], extractor.sampling_rate)[: samples_in_window(extractor)]


def samples_of(row: dict[str, Any]) -> np.ndarray:
    """The samples (N,) of an encoded row."""
    return np.frombuffer(row["samples"], np.float32).copy()  # torch wants arrays that can be written to


@dataclass(frozen=True)
class CollateAudio:
    """Collates encoded rows with `label`."""

    extractor: Any
    augmentation: AudioAugmentation | None = None  # None for evaluation

    def __call__(self, rows: list[dict], keys: Sequence[SampleKey]) -> dict[str, Any]:
        recordings = [samples_of(row) for row in rows]
        labels = torch.tensor([row["label"] for row in rows])
        if self.augmentation is not None:
            recordings = self.augmentation.change_samples(recordings, keys, samples_in_window(self.extractor))
        inputs = model_inputs(self.extractor, recordings)
        if self.augmentation is not None:
            inputs, labels = self.augmentation.change_inputs(inputs, labels, keys)
        num_targets = int((labels >= 0).sum()) if labels.dim() == 1 else len(labels)
        return {**inputs, "labels": labels, "num_targets": num_targets, "num_items": len(rows)}
