"""Skip-gram with negative sampling: guess the neighbours of a word. gensim trains it.

Mikolov, Sutskever, Chen, Corrado & Dean (2013), "Distributed representations of words and phrases and their
compositionality", https://arxiv.org/abs/1310.4546.
"""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from toolkit.data.text import spread
from toolkit.errors import InputError

TOKENS_OF_A_START = 3_000_000


class _OutOfTime(Exception):
    pass


def train_word_vectors(
    sentences_file: Path,
    *,
    vector_size: int,
    window: int,
    negative: int,
    min_count: int,
    max_final_vocab: int | None,
    epochs: int,
    alpha: float,
    workers: int,
    seed: int,
    max_minutes: float | None = None,
    on_epoch_end: Callable[[int, float], None] = lambda num_epochs, seconds: None,
):
    """A `gensim.models.Word2Vec` trained on a file with one sentence a line, its words separated by spaces.

    Equal to what gensim gives by hand with the same settings, bit for bit with one worker. With `max_minutes` training
    ends after the first epoch that ends later than that. `on_epoch_end` is told the epochs and seconds so far. Returns
    the model and the number of epochs trained.
    """
    from gensim.models import Word2Vec
    from gensim.models.callbacks import CallbackAny2Vec

    class Deadline(CallbackAny2Vec):
        def __init__(self):
            self.num_epochs = 0
            self.start = time.monotonic()

        def on_epoch_end(self, model) -> None:
            self.num_epochs += 1
            seconds = time.monotonic() - self.start
            on_epoch_end(self.num_epochs, seconds)
            if max_minutes is not None and seconds > 60 * max_minutes:
                raise _OutOfTime

    deadline = Deadline()
    model = Word2Vec(
        vector_size=vector_size,
        window=window,
        negative=negative,
        min_count=min_count,
        max_final_vocab=max_final_vocab,
        epochs=epochs,
        alpha=alpha,
        workers=workers,
        seed=seed,
        sg=1,
    )
    model.build_vocab(corpus_file=str(sentences_file))
    if not len(model.wv):
        raise InputError(f"no word occurs {min_count} times in the corpus, lower --min_count")
    with contextlib.suppress(_OutOfTime):
        model.train(
            corpus_file=str(sentences_file),
            total_examples=model.corpus_count,
            total_words=model.corpus_total_words,
            epochs=epochs,
            callbacks=[deadline],
        )
    return model, deadline.num_epochs


def train_token_vectors(
    rows, boundary_token_ids: list[int], vector_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of tokens, to start another encoder from: the ids (n,) and the vectors (n, vector_size).

    Tokens of `rows`, windows with `input_ids`, are neighbours where no boundary stands between them; those that are no
    boundary have a vector if they occur. A few passes over few windows, or one over windows spread over many, are
    enough for a start, seconds of work; one worker does it, so that the same rows give the same vectors.
    """
    tokens_a_row = np.mean([len(row["input_ids"]) for row in spread(rows, 1000)])
    rows = spread(rows, math.ceil(TOKENS_OF_A_START / tokens_a_row))
    epochs = min(5, max(1, round(TOKENS_OF_A_START / (tokens_a_row * len(rows)))))
    with tempfile.TemporaryDirectory() as folder:
        sentences_file = Path(folder) / "tokens.txt"
        with open(sentences_file, "w") as file:
            for row in rows:
                ids = np.array(row["input_ids"])
                for line in np.split(ids, np.flatnonzero(np.isin(ids, boundary_token_ids))):
                    if words := [str(i) for i in line.tolist() if i not in boundary_token_ids]:
                        print(*words, file=file)
        model, _ = train_word_vectors(
            sentences_file,
            vector_size=vector_size,
            window=5,
            negative=5,
            min_count=1,
            max_final_vocab=None,
            epochs=epochs,
            alpha=0.025,
            workers=1,
            seed=seed,
        )
    return np.array([int(word) for word in model.wv.index_to_key]), model.wv.vectors


def held_out_losses(
    model, sentences: Iterable[list[str]], seed: int, max_pairs: int = 200_000
) -> tuple[np.ndarray, np.ndarray]:
    """The objective on held-out text, in nats a pair: every pair of known neighbours against `negative` random words.

    Returns for each sentence the sum over its pairs and their number, up to the sentence that fills `max_pairs`.
    """
    rng = np.random.default_rng(seed)
    counts = np.array([model.wv.get_vecattr(word, "count") for word in model.wv.index_to_key], dtype=np.float64)
    noise = counts**model.ns_exponent / (counts**model.ns_exponent).sum()
    sums, num_pairs = [], []
    for words in sentences:
        ids = [model.wv.key_to_index[word] for word in words if word in model.wv.key_to_index]
        pairs = [(i, j) for i in range(len(ids)) for j in range(max(0, i - model.window), i)]
        pairs += [(j, i) for i, j in pairs]
        if not pairs:
            continue
        centres, neighbours = np.array(ids)[np.array(pairs).T]
        vectors, outputs = model.wv.vectors[centres], model.syn1neg  # (pairs, H), (V, H)
        losses = np.logaddexp(0, -(vectors * outputs[neighbours]).sum(axis=1))
        negatives = rng.choice(len(noise), size=(len(pairs), model.negative), p=noise)
        losses += np.logaddexp(0, np.einsum("ph,pkh->pk", vectors, outputs[negatives])).sum(axis=1)
        sums.append(losses.sum())
        num_pairs.append(len(pairs))
        if sum(num_pairs) >= max_pairs:
            break
    if not sums:
        raise InputError("no line of the held-out text has two words of the vocabulary")
    return np.array(sums), np.array(num_pairs)
