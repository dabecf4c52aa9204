"""Baselines: the usual methods without a network, which an encoder has to beat.

The tagger, which needs the extra `baselines`, is a conditional random field on spelling and neighbouring words
(Lafferty, McCallum & Pereira 2001), trained by crfsuite (Okazaki 2007, http://www.chokkan.org/software/crfsuite/).
Texts are classified by logistic regression on TF-IDF weights of words and word pairs, images on pixels, recordings on
statistics of MFCCs.
"""

from collections.abc import Sequence

import numpy as np

from toolkit.data.audio_decoding import open_audio
from toolkit.data.image_decoding import Decoding, open_image
from toolkit.errors import extra

NUM_PARTS = 3  # of a recording, whose statistics are computed apart


def crf_tags(
    sentences: Sequence[list[str]], tags: Sequence[list[str]], to_tag: Sequence[list[str]]
) -> list[list[str]]:
    """Train on `sentences` and their `tags`; returns the tags predicted for `to_tag`."""
    with extra("baselines"):
        from sklearn_crfsuite import CRF

    tagger = CRF(algorithm="lbfgs", c1=0.05, c2=0.01, max_iterations=100)
    tagger.fit([_features(words) for words in sentences], list(tags))
    return [list(predicted) for predicted in tagger.predict([_features(words) for words in to_tag])]


def _features(words: list[str]) -> list[dict[str, str | bool]]:
    """Features of each word: its affixes of up to four letters, its shape, and the words within two places."""
    lower = [word.lower() for word in words]
    sentence = []
    for i, word in enumerate(words):
        features: dict[str, str | bool] = {
            "shape": _shape(word),
            "is_title": word.istitle(),
            "is_upper": word.isupper(),
            "has_digit": any(character.isdigit() for character in word),
            "has_hyphen": "-" in word,
        }
        for place in range(max(0, i - 2), min(len(words), i + 3)):
            features[f"word{place - i}"] = lower[place]
        for length in range(1, min(4, len(word)) + 1):
            features[f"prefix{length}"], features[f"suffix{length}"] = lower[i][:length], lower[i][-length:]
        sentence.append(features)
    return sentence


def _shape(word: str) -> str:
    """The kinds of characters with runs collapsed: *McCoy-7* is `XxXx-d`."""
    kinds = ["X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word]
    return "".join(kind for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1])


def tfidf_labels(texts: Sequence[str], labels: Sequence[str], to_label: Sequence[str]) -> list[str]:
    """Train on `texts` and their `labels`; returns the labels predicted for `to_label`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    from toolkit.transfer.linear_probe import fit_linear_probe

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    probe = fit_linear_probe(vectorizer.fit_transform(texts), labels)
    return probe.predict(vectorizer.transform(to_label)).tolist()


def pixel_labels(train_rows, rows, size: int = 28) -> list[tuple[str, float, dict[str, float]]]:
    """Train on the pixels of labelled images, resized to `size` × `size`.

    Returns for each of `rows` the predicted label, its probability, and the probability of every label.
    """
    decoding = Decoding.of_images(train_rows["image"])

    def pixels(rows) -> np.ndarray:
        images = (open_image(row["image"], row["name"], decoding).resize((size, size)) for row in rows)
        return np.stack([np.asarray(image, dtype=np.float32).ravel() for image in images])

    return _labels_of_features(pixels(train_rows), train_rows["label"][:], pixels(rows), strength=0.01)


def mfcc_labels(
    train_rows, rows, sampling_rate: int = 8000, num_coefficients: int = 20
) -> list[tuple[str, float, dict[str, float]]]:
    """Train on means and standard deviations of MFCCs, and of their differences, in the thirds of labelled recordings.

    Mel-frequency cepstral coefficients are the cosine transform of log-mel values: Davis & Mermelstein (1980),
    https://doi.org/10.1109/TASSP.1980.1163420. Returns the same as `pixel_labels`.
    """
    import torch
    from scipy.fft import dct

    from toolkit.models.log_mel import LogMelFeatureExtractor

    extractor = LogMelFeatureExtractor(sampling_rate, num_mel_bins=40)

    def statistics(rows) -> np.ndarray:
        found = []
        for row in rows:
            samples = extractor.level(torch.from_numpy(open_audio(row["audio"], row["name"], sampling_rate)))
            coefficients = dct(extractor.log_mel(samples[None])[0].numpy(), norm="ortho")[:, :num_coefficients]
            changes = np.diff(coefficients, axis=0, append=coefficients[-1:])
            of_frames = np.concatenate([coefficients, changes], axis=1)
            of_frames = np.pad(of_frames, ((0, max(0, NUM_PARTS - len(of_frames))), (0, 0)), mode="edge")
            parts = np.array_split(of_frames, NUM_PARTS)
            found.append(np.concatenate([statistic for part in parts for statistic in (part.mean(0), part.std(0))]))
        return np.stack(found)

    return _labels_of_features(statistics(train_rows), train_rows["label"][:], statistics(rows), strength=1.0)


def _labels_of_features(
    features: np.ndarray, labels: Sequence[str], to_label: np.ndarray, strength: float
) -> list[tuple[str, float, dict[str, float]]]:
    """Logistic regression on standardized features (N, D): label, its probability, the probability of every label."""
    from sklearn.preprocessing import StandardScaler

    from toolkit.transfer.linear_probe import fit_linear_probe

    scaler = StandardScaler()
    probe = fit_linear_probe(scaler.fit_transform(features), labels, C=strength)
    names, probabilities = probe.classes_.tolist(), probe.predict_proba(scaler.transform(to_label))
    found = (dict(zip(names, values, strict=True)) for values in probabilities.tolist())
    return [(label := max(each, key=each.__getitem__), each[label], each) for each in found]
