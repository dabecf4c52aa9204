#!/usr/bin/env python
"""Make the sample of spoken digits that the package brings: `toolkit finetune audio --data sample`.

    python scripts/make_spoken_digits.py toolkit/data/samples/spoken_digits

It needs eSpeak NG (https://github.com/espeak-ng/espeak-ng, GPL-3.0-or-later), version 1.51 for the files in this
repository, by `apt-get install espeak-ng`. The licence of a program does not extend to what it says, so the recordings
have the licence of this toolkit. Each of 24 voices says the ten digits once; no voice is in two splits.
"""

import io
import subprocess
import sys
from pathlib import Path

import datasets
import soundfile
import soxr
import torch

from toolkit.models.log_mel import trim_silence

RATE = 8000
DIGITS = "zero one two three four five six seven eight nine".split()
ACCENTS = "en-gb en-us en-gb-scotland en-gb-x-rp en-029 en-gb-x-gbclan".split()
VARIANTS = {
    "train": "f1 f2 f3 m1 m2 m3 m4 Alicia Andy Denis Mario Michael Storm adam linda victor".split(),
    "validation": "f4 m5 Annie paul".split(),
    "test": "f5 m7 belinda robert".split(),
}


def speak(word: str, voice: str, words_per_minute: int, pitch: int = 50) -> bytes:
    """A recording of 8 kHz as Ogg Opus, without the silence before and after; `pitch` is 0 to 99."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "--stdout", word]
    samples, rate = soundfile.read(io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout))
    file = io.BytesIO()
    trimmed = trim_silence(torch.from_numpy(soxr.resample(samples, rate, RATE)), RATE)
    soundfile.write(file, trimmed.numpy(), RATE, format="OGG", subtype="OPUS")
    return file.getvalue()


def main(folder: str) -> None:
    number = 0
    for split, variants in VARIANTS.items():
        rows = []
        for variant in variants:
            voice, speed = f"{ACCENTS[number % len(ACCENTS)]}+{variant}", 130 + 10 * (number % 5)
            number += 1
            for digit, word in enumerate(DIGITS):
                audio = {"bytes": speak(word, voice, speed), "path": f"{digit}_{variant}.ogg"}
                rows.append({"audio": audio, "label": str(digit), "speaker": variant})
        found = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
        found.to_parquet(Path(folder) / f"{split}.parquet")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
