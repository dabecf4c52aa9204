#!/usr/bin/env python
"""Make recordings to pretrain a small encoder of speech on: frequent English words, spoken by a synthesizer.

    python scripts/make_spoken_words.py OUTPUT_DIR [RECORDINGS]

OUTPUT_DIR gets a folder of RECORDINGS (40) for each of the digits 0 to 4 and of the most frequent words of the sample
treebank. The digits 5 to 9 are kept for tests. It needs eSpeak NG, as scripts/make_spoken_digits.py does.
"""

import random
import sys
from collections import Counter
from pathlib import Path

from make_spoken_digits import ACCENTS, DIGITS, VARIANTS, speak

from toolkit.data.treebank import load_treebank

NUM_WORDS, LEAST_LETTERS = 195, 3
SPEEDS, PITCHES = (110, 190), (20, 80)  # words a minute; eSpeak's scale of pitch


def frequent_words() -> list[str]:
    sentences = load_treebank("sample", "train")
    words = Counter(word.lower() for sentence in sentences for word in sentence["tokens"])
    return [word for word, _ in words.most_common() if word.isalpha() and len(word) >= LEAST_LETTERS]


def main(output: Path, recordings: int = 40) -> None:
    chosen = random.Random(0)
    words = DIGITS[:5] + [word for word in frequent_words() if word not in DIGITS][:NUM_WORDS]
    voices = [voice for of_split in VARIANTS.values() for voice in of_split]
    for word in words:
        (output / word).mkdir(parents=True, exist_ok=True)
        for number in range(recordings):
            voice = f"{chosen.choice(ACCENTS)}+{chosen.choice(voices)}"
            recording = speak(word, voice, chosen.randint(*SPEEDS), chosen.randint(*PITCHES))
            (output / word / f"{number}.ogg").write_bytes(recording)
    print(f"{output}: {len(words) * recordings:,} recordings of {len(words)} words")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
