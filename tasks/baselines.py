"""What a task can be done with and without any network: the methods that an encoder has to beat. Extra: `baselines`.

The tagger is a conditional random field over spelling and neighbours (Lafferty, McCallum & Pereira 2001) trained by
crfsuite (Okazaki 2007, http://www.chokkan.org/software/crfsuite/). The classifier of texts is logistic regression on
words and pairs of words, weighted by TF-IDF, that of images logistic regression on pixels.
"""

from collections.abc import Sequence

from toolkit.errors import extra


def crf_tags(
    sentences: Sequence[list[str]], tags: Sequence[list[str]], to_tag: Sequence[list[str]]
) -> list[list[str]]:
    """Train on `sentences` and their `tags`, return the tags of `to_tag`."""
    with extra("baselines"):
        from sklearn_crfsuite import CRF

    tagger = CRF(algorithm="lbfgs", c1=0.05, c2=0.01, max_iterations=100)
    tagger.fit([_features(words) for words in sentences], list(tags))
    return [list(predicted) for predicted in tagger.predict([_features(words) for words in to_tag])]


def _features(words: list[str]) -> list[dict[str, str | bool]]:
    """Of each word its affixes of up to four letters, its shape, and the words from two before it to two after it."""
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
    """*McCoy-7* as `XxXx-d`: kinds of characters, runs as one."""
    kinds = ["X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word]
    return "".join(kind for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1])


def tfidf_labels(texts: Sequence[str], labels: Sequence[str], to_label: Sequence[str]) -> list[str]:
    """Train on `texts` and their `labels`, return the labels of `to_label`."""
    with extra("baselines"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    classifier = make_pipeline(vectorizer, LogisticRegression(C=10, max_iter=1000))
    return classifier.fit(texts, labels).predict(to_label).tolist()


def pixel_labels(train_rows, rows, size: int = 28) -> list[tuple[str, dict[str, float]]]:
    """Train on the pixels of labelled images, made `size` × `size`; return the label of each of `rows`, and the
    probability of every label."""
    import numpy as np

    from toolkit.data.image_files import open_image

    with extra("baselines"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

    def pixels(rows):
        images = (open_image(row["image"], row["name"]).resize((size, size)) for row in rows)
        return np.stack([np.asarray(image, dtype=np.float32).ravel() for image in images])

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    probabilities = classifier.fit(pixels(train_rows), train_rows["label"][:]).predict_proba(pixels(rows))
    names = classifier.classes_.tolist()
    found = (dict(zip(names, values, strict=True)) for values in probabilities.tolist())
    return [(max(each, key=each.__getitem__), each) for each in found]
