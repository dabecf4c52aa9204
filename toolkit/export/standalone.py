"""Classify files or texts by the model of this folder, without the toolkit that made it and without torch.

python predict.py FILE_OR_TEXT...    prints label, probability and example; the label is - if it is none of them
python predict.py --check            compares with the answers of the classifier that was exported

Needs onnxruntime and numpy; for images pillow, for recordings soundfile and soxr, for texts tokenizers.
"""

import argparse
import json
from pathlib import Path

import numpy as np

MODEL_FILE, CONFIG_FILE, TOKENIZER_FILE = "model.onnx", "classifier.json", "tokenizer.json"
PARITY_FILE, PARITY_FOLDER = "parity.json", "parity"
TOLERANCE = 0.02  # of a probability
LEAST_LEVEL, SILENCE = 1e-3, 0.01  # as in the feature extractor of the toolkit


class StandaloneClassifier:
    """The classifier of a folder."""

    def __init__(self, folder: Path):
        import onnxruntime

        self.folder = folder
        self.config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        self.session = onnxruntime.InferenceSession(str(folder / MODEL_FILE), providers=["CPUExecutionProvider"])
        if self.config["modality"] == "text":
            self.tokenizer = self._tokenizer()
        self.read = {"image": self._image, "audio": self._recording, "text": self._text}[self.config["modality"]]

    def predict(self, example: str) -> tuple[str | None, np.ndarray]:
        """The label, None if the example is of no class, and the probability of each class, (C,)."""
        logits, confidence = self.session.run(None, self.read(example))
        exponentials = np.exp(logits[0] - logits[0].max())
        probabilities = exponentials / exponentials.sum()
        threshold = self.config["threshold"]
        if threshold is not None and confidence[0] < threshold:
            return None, probabilities
        return self.config["labels"][int(probabilities.argmax())], probabilities

    def compare(self) -> tuple[float, list[str]]:
        """The largest difference of a probability from those of parity.json, and the examples with another answer."""
        largest, changed = 0.0, []
        for case in json.loads((self.folder / PARITY_FILE).read_text(encoding="utf-8")):
            is_text = self.config["modality"] == "text"
            label, found = self.predict(case["example"] if is_text else str(self.folder / case["example"]))
            difference = float(np.abs(found - case["probabilities"]).max())
            largest = max(largest, difference)
            if label != case["label"] or difference > TOLERANCE:
                changed.append(case["example"])
        return largest, changed

    def _image(self, path: str) -> dict[str, np.ndarray]:
        from PIL import Image, ImageOps

        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            image = image.convert("RGB")
        if self.config["largest_side"] is not None:
            image.thumbnail((self.config["largest_side"], self.config["largest_side"]))
        size = self.config["width"], self.config["height"]
        return {"pixels": np.asarray(image.resize(size, self.config["resample"]))[None]}

    def _recording(self, path: str) -> dict[str, np.ndarray]:
        import soundfile
        import soxr

        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        samples = samples.mean(axis=1)
        if rate != self.config["sampling_rate"]:
            samples = soxr.resample(samples, rate, self.config["sampling_rate"])
        if self.config["do_trim"]:
            samples = _trimmed(samples, self.config["sampling_rate"])
        samples = samples[: self.config["num_samples"]]
        if self.config["do_normalize"] and samples.any():
            samples = samples / max(LEAST_LEVEL, np.sqrt(np.mean(samples[samples != 0].astype(np.float64) ** 2)))
        padded = np.zeros((1, self.config["num_samples"]), dtype=np.float32)
        padded[0, : len(samples)] = samples
        return {"samples": padded}

    def _tokenizer(self):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER_FILE))
        tokenizer.no_padding()
        if self.config["max_length"] is not None:
            tokenizer.enable_truncation(self.config["max_length"])
        return tokenizer

    def _text(self, text: str) -> dict[str, np.ndarray]:
        ids = np.array([self.tokenizer.encode(text).ids])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if "ngrams" in self.config:
            inputs["ngrams"] = _ngram_rows(ids[0].tolist(), **self.config["ngrams"])[None]
        return inputs


def _trimmed(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Samples (N,) without what is 40 dB below the loudest 10 ms, before and after the sound."""
    step = max(1, round(sampling_rate / 100))
    level = np.sqrt(
        (np.pad(samples, (0, -len(samples) % step)).reshape(-1, step).astype(np.float64) ** 2).mean(axis=1)
    )
    loud = np.flatnonzero(level >= SILENCE * level.max())
    return samples[loud[0] * step : (loud[-1] + 1) * step]


def _ngram_rows(
    ids: list[int],
    bytes: list[int],
    first_byte_id: int,
    first_continuation_id: int,
    num_buckets: int,
    min_n: int,
    max_n: int,
) -> np.ndarray:
    """The rows of the n-grams of each token's word in the table of fastText, (T, K), filled up with -1.

    They are -2 for a word that is known or of one byte. `bytes` are the bytes in the order of their tokens.
    """
    words: list[list[int]] = []  # the places of the tokens of each word
    for place, token in enumerate(ids):
        if words and first_continuation_id <= token < first_continuation_id + len(bytes):
            words[-1].append(place)
        else:
            words.append([place])
    rows: list[list[int] | None] = [None] * len(ids)
    for places in words:
        if len(places) > 1:
            word = [bytes[(ids[place] - first_byte_id) % len(bytes)] for place in places]
            found = [value % num_buckets for value in _ngram_hashes(word, min_n, max_n)]
            for place in places:
                rows[place] = found
    width = max(1, *(len(found or ()) for found in rows))
    return np.array([[-2] * width if found is None else found + [-1] * (width - len(found)) for found in rows])


def _ngram_hashes(word: list[int], min_n: int, max_n: int) -> list[int]:
    """FNV-1a of the n-grams of the characters of a word, given as UTF-8, in brackets; bytes are taken as signed."""
    characters: list[list[int]] = []
    for code in [ord("<"), *word, ord(">")]:
        if 0x80 <= code < 0xC0:
            characters[-1].append(code)
        else:
            characters.append([code])
    hashes = []
    for first in range(len(characters)):
        value = 2166136261
        for n, character in enumerate(characters[first : first + max_n], start=1):
            for code in character:
                value = ((value ^ (code if code < 0x80 else code | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
            is_bracket = n == 1 and first in (0, len(characters) - 1)
            if n >= min_n and not is_bracket:
                hashes.append(value)
    return hashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="*", metavar="FILE_OR_TEXT")
    parser.add_argument("--check", action="store_true", help="compare with the classifier that was exported")
    arguments = parser.parse_args()
    folder = Path(__file__).resolve().parent
    if arguments.check and not (folder / PARITY_FILE).is_file():
        parser.error(f"--check: the classifier was exported without examples (no {PARITY_FILE})")
    classifier = StandaloneClassifier(folder)
    for example in arguments.examples:
        label, probabilities = classifier.predict(example)
        print(f"{'-' if label is None else label}\t{probabilities.max():.4f}\t{example}")
    if arguments.check:
        difference, changed = classifier.compare()
        print(
            f"largest difference of a probability: {difference:.6f}", *(f"another answer: {name}" for name in changed)
        )
        return 1 if changed else 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
