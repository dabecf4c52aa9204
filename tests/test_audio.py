"""Recordings: how they are found, decoded, made spectrograms and changed at random."""

import io
import struct
import threading
from itertools import chain, pairwise

import datasets
import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers import AutoFeatureExtractor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from toolkit.data.audio_decoding import head_of, open_audio, resample
from toolkit.data.audio_files import AUDIO
from toolkit.data.groups import keep_apart
from toolkit.errors import InputError
from toolkit.modalities import MODALITIES
from toolkit.modalities.audio_augmentation import MOST_GAIN, NUM_POINTS, AudioAugmentation
from toolkit.modalities.waveforms import CollateAudio, encode_audio, samples_of, windows
from toolkit.models.log_mel import LogMelFeatureExtractor, trim_silence
from toolkit.training.sampler import SampleKey

RATE = 8000


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    """A tone that fades in and out, float32."""
    times = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times) * np.hanning(len(times))).astype(np.float32)


def as_bytes(samples: np.ndarray, rate: int = RATE, **format: str) -> dict:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", **format})
    return {"bytes": file.getvalue(), "path": None}


def fitted(seconds: float = 0.5) -> LogMelFeatureExtractor:
    return LogMelFeatureExtractor(RATE, seconds, num_mel_bins=24, mean=-2.0, std=3.0)


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_log_mel_equals_transformers_own(rate):
    samples = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    extractor = LogMelFeatureExtractor(rate, 1.0, num_mel_bins=40)
    window, fft = rate // 40, 256 if rate == 8000 else 512
    filters = mel_filter_bank(fft // 2 + 1, 40, 20.0, rate / 2, rate)
    expected = spectrogram(
        samples,
        window_function(window, "hann"),
        frame_length=window,
        hop_length=rate // 100,
        fft_length=fft,
        power=2.0,
        mel_filters=filters,
        mel_floor=extractor.mel_floor,
        log_mel="log",
    ).T
    found = extractor.log_mel(torch.from_numpy(samples)[None])[0].numpy()
    assert found.shape == expected.shape == (101, 40)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_batch_equals_its_recordings_one_by_one():
    extractor, recordings = fitted(), [tone(0.2), tone(0.5, 900), tone(0.8, 300)]
    together = extractor(recordings, sampling_rate=RATE, return_tensors="pt")["input_values"]
    assert together.shape == (3, extractor.max_length, 24)
    for one, recording in zip(together, recordings, strict=True):
        torch.testing.assert_close(extractor(recording)["input_values"][0], one, atol=1e-4, rtol=1e-4)
    longest = extractor(recordings[2][: extractor.num_samples])["input_values"][0]
    torch.testing.assert_close(together[2], longest)  # what is longer than 0.5 s is cut


def test_the_volume_of_a_recording_does_not_matter():
    extractor = fitted()
    loud, quiet = (extractor(factor * tone(0.3))["input_values"] for factor in (1.0, 0.1))
    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=1e-4)


def test_the_extractor_is_saved_and_opened(tmp_path):
    extractor = fitted()
    extractor.save_pretrained(tmp_path)
    opened = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(opened, LogMelFeatureExtractor)
    torch.testing.assert_close(opened(tone(0.4))["input_values"], extractor(tone(0.4))["input_values"])
    with pytest.raises(ValueError, match="16000 Hz, expected 8000"):
        opened(tone(0.4), sampling_rate=16_000)


def test_44_kHz_stereo_gives_what_its_8_kHz_mono_copy_gives():
    fast = tone(0.5, 440, 44_100)
    stereo = np.stack([1.5 * fast, 0.5 * fast], axis=1)
    found = open_audio(as_bytes(stereo, 44_100), "stereo", RATE)
    np.testing.assert_allclose(found, tone(0.5), atol=2e-3)
    extractor = fitted()
    copy = open_audio(as_bytes(tone(0.5)), "copy", RATE)
    difference = extractor(found)["input_values"] - extractor(copy)["input_values"]
    assert difference.abs().mean() < 0.05


@pytest.mark.parametrize("format", [{}, {"format": "FLAC"}, {"format": "OGG"}, {"format": "MP3"}])
def test_formats(format):
    samples = tone(0.5)
    found = open_audio(as_bytes(samples, **format), "tone")
    assert np.abs(found[: len(samples)] - samples).mean() < 0.02
    assert head_of(as_bytes(samples, **format), "tone").seconds == pytest.approx(0.5, abs=0.1)


def test_resampling_is_that_of_soxr():
    np.testing.assert_array_equal(resample(tone(0.5), RATE, 16_000), soxr.resample(tone(0.5), RATE, 16_000))


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_part_of_a_recording_equals_a_slice(format):
    audio = as_bytes(tone(2.0), format=format)
    whole = open_audio(audio, "whole")
    found = open_audio({**audio, "start": 1.25, "stop": 1.5}, "part")
    np.testing.assert_allclose(found, whole[10_000:12_000], atol=1e-6)


def with_rate(rate: int) -> bytes:
    content = bytearray(as_bytes(tone(0.1))["bytes"])
    content[24:28] = struct.pack("<I", rate)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty, expected a recording"),
        (b"this is a text\n" * 20, "this is no recording that libsndfile can read (Format not recognised)"),
        (as_bytes(np.zeros(0))["bytes"], "there is no sound in it, it holds no samples"),
        (as_bytes(tone(0.1))["bytes"][:20], "this is no recording that libsndfile can read"),
        (with_rate(0), "this is no recording that libsndfile can read (it gives no sampling rate)"),
        (as_bytes(np.full(9, np.nan), subtype="FLOAT")["bytes"], "has samples that are no finite numbers"),
        (as_bytes(tone(2.0), format="FLAC")["bytes"][:5000], "this "),
    ],
)
def test_broken_recordings_are_named(content, message):
    with pytest.raises(InputError) as error:
        open_audio({"bytes": content, "path": None}, "a.wav")
    assert str(error.value).startswith(f"a.wav: {message}")


def test_silence_is_trimmed():
    silent = np.full(800, 1e-4, dtype=np.float32)
    loud = np.full(1600, 0.5, dtype=np.float32)
    samples = np.concatenate([silent, loud, silent, silent])
    np.testing.assert_array_equal(trim_silence(torch.from_numpy(samples), RATE).numpy(), loud)
    extractor = LogMelFeatureExtractor(RATE, 0.4, do_trim=True, mean=0.0, std=1.0)
    torch.testing.assert_close(extractor(samples)["input_values"], extractor(loud)["input_values"])


def test_windows_cover_a_recording():
    parts = windows(1.0, 11.0, 3.0)
    assert len(parts) == 4
    assert all(stop - start == pytest.approx(3.0) for start, stop in parts)
    assert (parts[0][0], parts[-1][1]) == (1.0, pytest.approx(11.0))
    assert all(later[0] <= earlier[1] for earlier, later in pairwise(parts))
    assert windows(0.0, 3.0, 3.0) == [(0.0, 3.0)]
    assert windows(0.0, 2.0, 3.0) == [(0.0, 2.0)]
    assert len(windows(0.0, 9.0, 3.0)) == 3


def test_encoded_rows_hold_the_samples(tmp_path):
    rows = AUDIO.load_labelled("sample", "test")
    extractor = LogMelFeatureExtractor(RATE, 0.4, mean=0.0, std=1.0)
    encoded = encode_audio(rows, extractor, {str(digit): digit for digit in range(10)})
    for row in encoded:
        whole = open_audio(rows[row["index"]]["audio"], "", RATE)
        start, stop = windows(0.0, len(whole) / RATE, 0.4)[row["part"]]
        np.testing.assert_array_equal(samples_of(row), whole[round(start * RATE) : round(stop * RATE)])
        assert row["label"] == int(rows[row["index"]]["label"])
        assert row["size"] == len(samples_of(row))
    assert len(encoded) > len(rows)


def test_sources(tmp_path):
    for label, hertz in (("high", 900), ("low", 200)):
        (tmp_path / "folders" / label).mkdir(parents=True)
        for number in range(3):
            name = tmp_path / "folders" / label / f"{number}.flac"
            soundfile.write(name, tone(0.2, hertz + number), RATE)
    files = sorted((tmp_path / "folders").rglob("*.flac"))
    lines = [f"{file.relative_to(tmp_path)},{file.parent.name}" for file in files]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    contents = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    rows = datasets.Dataset.from_dict({"audio": contents, "label": [file.parent.name for file in files]})
    rows.cast_column("audio", datasets.Audio(decode=False)).to_parquet(tmp_path / "rows.parquet")
    expected = [open_audio({"bytes": None, "path": str(file)}, file.name) for file in files]
    for source in ("folders", "table.csv", "rows.parquet"):
        found = AUDIO.load_labelled(str(tmp_path / source))
        assert found["label"][:] == ["high"] * 3 + ["low"] * 3
        for row, samples in zip(found, expected, strict=True):
            np.testing.assert_array_equal(open_audio(row["audio"], row["name"]), samples)


def rows_of_groups(groups: str):
    values = {"name": list(groups), "label": list(groups), "group": list(groups)}
    return AUDIO.dataset([{"bytes": b"", "path": None}] * len(groups), **{"names": values.pop("name"), **values})


def source_of_groups(**splits: str):
    from toolkit.data.sources import Source
    from toolkit.data.splits import DataFiles

    found = DataFiles.named(*splits)
    return Source("recordings", found, lambda split: rows_of_groups(splits[split or "train"]))


def test_groups_are_kept_apart():
    opened = keep_apart(source_of_groups(train="aabbccdd", test="abcd"), "speaker", ["b"])
    parts = {split: opened.load(split)["group"][:] for split in opened.splits}
    assert parts["test"] == ["b", "b", "b"]
    assert sorted(chain(*parts.values())) == sorted("aabbccddabcd")
    assert set(parts["train"]).isdisjoint(parts["validation"])
    assert keep_apart(source_of_groups(test="ab"), "speaker", None).load("test")["group"][:] == ["a", "b"]
    large = keep_apart(source_of_groups(train="a" + "b" * 30), "speaker", None)
    assert large.load("validation")["group"][:] == ["a"]  # not most of the data
    opened = keep_apart(source_of_groups(train="aabbcc", test="d"), "speaker", None)
    assert opened.load("test")["group"][:] == ["d"]
    assert len(set(opened.load("validation")["group"])) == 1


@pytest.mark.parametrize(
    ("splits", "tested", "message"),
    [
        ({"train": "aaaa"}, None, "of recordings, a is left to train on; expected two or more"),
        ({"train": "ab"}, ["b"], "of recordings, a is left to train on; expected two or more"),
        ({"train": "ab"}, ["a", "b"], "of recordings, none is left to train on; expected two or more"),
        ({"train": "aabb", "test": "b"}, None, "b is in train and in test of recordings"),
        ({"train": "aabb"}, ["c"], "--test_groups c: not in speaker of recordings, found a, b"),
    ],
)
def test_groups_that_cannot_be_kept_apart(splits, tested, message):
    with pytest.raises(InputError, match=message):
        keep_apart(source_of_groups(**splits), "speaker", tested).load("train")


def keys_of(count: int, step: int = 0) -> list[SampleKey]:
    return [SampleKey(step, 0, index) for index in range(count)]


@pytest.mark.parametrize("name", ["shift", "speed", "noise", "filter", "mask", "mixup"])
def test_augmentation_depends_on_the_key_alone(name):
    extractor = fitted()
    rows = [{"samples": tone(0.3, 300 + 50 * n).tobytes(), "label": n} for n in range(4)]
    collate = CollateAudio(extractor, AudioAugmentation((name,), 0))
    first, again = collate(rows, keys_of(4)), collate(rows, keys_of(4))
    torch.testing.assert_close(first["input_values"], again["input_values"], atol=0, rtol=0)
    plain = CollateAudio(extractor)(rows, keys_of(4))
    assert not torch.equal(first["input_values"], plain["input_values"])
    if name != "mixup":  # which mixes with others of the batch
        alone = collate(rows[2:3], keys_of(4)[2:3])
        torch.testing.assert_close(alone["input_values"][0], first["input_values"][2], atol=1e-4, rtol=1e-4)


def test_a_filter_adds_a_gain_to_each_band():
    extractor = fitted()
    rows = [{"samples": tone(0.5, 300 + 200 * n).tobytes(), "label": n} for n in range(2)]
    plain = CollateAudio(extractor)(rows, keys_of(2))["input_values"]
    gains = CollateAudio(extractor, AudioAugmentation(("filter",), 1))(rows, keys_of(2))["input_values"] - plain
    torch.testing.assert_close(gains, gains[:, :1].expand_as(gains), atol=1e-4, rtol=0)
    assert 0.05 < gains.abs().max() <= MOST_GAIN + 1e-4
    assert not torch.allclose(gains[0, 0], gains[1, 0], atol=1e-2)
    bends = gains[:, 0].diff(n=2, dim=1).abs() > 1e-4
    assert bends.sum(dim=1).max() <= 2 * (NUM_POINTS - 2)


def test_masks_are_bands_of_the_mean():
    extractor = fitted()
    rows = [{"samples": tone(0.5).tobytes(), "label": 0}]
    plain = CollateAudio(extractor)(rows, keys_of(1))["input_values"][0]
    masked = CollateAudio(extractor, AudioAugmentation(("mask",), 3))(rows, keys_of(1))["input_values"][0]
    is_hidden = masked != plain
    assert is_hidden.any()
    assert (masked[is_hidden] == 0).all()
    rows_hidden, columns_hidden = is_hidden.all(dim=1), is_hidden.all(dim=0)
    assert torch.equal(is_hidden, rows_hidden[:, None] | columns_hidden[None])


def test_mixup_mixes_labels_as_it_mixes_spectrograms():
    extractor = fitted()
    rows = [{"samples": tone(0.5, 300 + 200 * n).tobytes(), "label": n} for n in range(3)]
    plain = CollateAudio(extractor)(rows, keys_of(3))["input_values"]
    batch = CollateAudio(extractor, AudioAugmentation(("mixup",), 1))(rows, keys_of(3))
    assert batch["labels"].shape == (3, 3)
    assert batch["num_targets"] == 3
    expected = torch.einsum("bc,ctm->btm", batch["labels"], plain)
    torch.testing.assert_close(batch["input_values"], expected, atol=1e-5, rtol=1e-5)


def test_windows_of_a_long_recording_are_read_one_by_one(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(tone(0.5), 21), RATE)  # 10.5 s
    rows = MODALITIES["audio"].cut(AUDIO.load_inputs([path]), 1.0, 0.5)
    assert [row["audio"]["start"] for row in rows] == [number / 2 for number in range(20)]
    assert rows[-1]["audio"]["stop"] == 10.5
    assert MODALITIES["audio"].describe(rows[3]) == {"audio": str(path), "start": 1.5, "stop": 2.5}
    assert MODALITIES["audio"].title(rows[3]) == f"{path}\t1.50\t2.50"
    assert len(open_audio(rows[-1]["audio"], "last")) == RATE
    apart = MODALITIES["audio"].cut(AUDIO.load_inputs([path]), 1.0, 5.0)
    assert [row["audio"]["start"] for row in apart] == [0.0, 5.0, 10.0]
    soundfile.write(path, tone(0.8), RATE)
    short = MODALITIES["audio"].cut(AUDIO.load_inputs([path]), 0.1, 0.1)
    assert len(short) == 8


def test_a_long_recording_is_read_in_bounded_memory(tmp_path):
    """Half an hour takes 230 MB as samples of float32 at 32 kHz; windows are read and written a few at a time."""
    psutil = pytest.importorskip("psutil")
    path, rate = tmp_path / "long.wav", 32_000
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for _ in range(30):
            file.write(np.random.default_rng(0).uniform(-0.5, 0.5, 60 * rate).astype(np.float32))
    extractor = LogMelFeatureExtractor(rate, 10.0, mean=0.0, std=1.0)
    rows = AUDIO.load_inputs([path])
    encode_audio(rows, extractor, {})  # what threads and libraries need
    before, seen, is_done = psutil.Process().memory_info().rss, [], threading.Event()

    def watch() -> None:
        while not is_done.wait(0.01):
            seen.append(psutil.Process().memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    encoded = encode_audio(rows, extractor, {})
    is_done.set()
    thread.join()
    assert len(encoded) == 180
    assert sum(encoded["size"][:]) == 30 * 60 * rate
    assert max(seen) - before < 150e6
