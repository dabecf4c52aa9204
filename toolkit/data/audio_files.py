"""Recordings: which files they are, and the sample, digits that 24 voices of a synthesizer speak."""

from functools import lru_cache
from pathlib import Path

from toolkit.data import sources, table_files
from toolkit.data.media_files import MediaFiles
from toolkit.data.splits import SPLIT_NAMES
from toolkit.errors import InputError

SAMPLE_DIGITS = Path(__file__).parent / "samples" / "spoken_digits"  # made by scripts/make_spoken_digits.py


def _check(audio, name: str) -> None:
    from toolkit.data.audio_decoding import open_audio

    open_audio(audio, name)


@lru_cache
def _load_sample(split: str, **named: str | None):
    if split not in SPLIT_NAMES:
        raise InputError(f"sample: no split '{split}' of the spoken digits, expected {', '.join(SPLIT_NAMES)}")
    rows = table_files.load_table(sources.SAMPLE, [SAMPLE_DIGITS / f"{split}.parquet"], split)
    return AUDIO.items_of_table(sources.SAMPLE, rows, SAMPLE_DIGITS, None, **named)


AUDIO = MediaFiles(
    name="audio",
    noun="recording",
    suffixes=frozenset(
        (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64")
    ),
    usual_columns=("audio", "file_name", "file", "filename", "path", "wav"),
    feature="Audio",
    check=_check,
    sample_splits=tuple(SPLIT_NAMES),
    load_sample=_load_sample,
)
