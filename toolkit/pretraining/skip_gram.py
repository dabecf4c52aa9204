"""Skip-gram with negative sampling, which predicts the neighbours of a word, trained by gensim.

For the papers see `word2vec.py` and, with n-grams of characters, `fasttext.py`.
"""

import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.corpora.blocks import Block
from toolkit.corpora.cleaning import Notes
from toolkit.corpora.corpus import Corpus
from toolkit.corpora.word_counts import PackedCounts, Space, WordCounts
from toolkit.corpora.workers import map_in_order
from toolkit.data.rows import spread
from toolkit.errors import InputError

TOKENS_OF_A_START = 3_000_000
ROWS_A_PART, MOST_PARTS = 20_000, 8  # of a text that has fewer blocks than that, however many processes there are


class _OutOfTime(Exception):
    pass


@dataclass(frozen=True)
class Sentences:
    """A file with one sentence a line, its words separated by spaces, and what gensim would count in it."""

    file: Path
    words: WordCounts
    num_sentences: int


def write_sentences(batches: Iterable[list[str]], file: Path) -> Sentences:
    """Write lines of words with spaces between them, but not those without words."""
    from gensim.models.word2vec import MAX_WORDS_IN_BATCH

    counts: Counter[bytes] = Counter()  # bytes are split where gensim's workers do, at ASCII's spaces alone
    num_sentences = 0
    with open(file, "wb") as sentences:
        for lines in batches:
            lines = [line for line in lines if line.strip()]
            text = "".join(f"{line}\n" for line in lines).encode()
            sentences.write(text)
            counts.update(text.split())
            num_sentences += len(lines)
            for line in lines:
                if len(line) > MAX_WORDS_IN_BATCH:  # gensim cuts those with more words
                    num_sentences += (len(line.encode().split()) - 1) // MAX_WORDS_IN_BATCH
    words = WordCounts()
    words.add(Counter({word.decode(): count for word, count in counts.items()}))
    return Sentences(file, words, num_sentences)


def write_corpus(corpus: Corpus, space: Space, file: Path, num_proc: int, max_words: int | None = None) -> Sentences:
    """Like `write_sentences`, of a corpus, in `num_proc` processes; at most `max_words` words are counted."""
    corpus = corpus.divided(min(MOST_PARTS, 1 + len(corpus) // ROWS_A_PART))
    write = partial(_write_block, corpus, space, file)
    words, num_sentences = WordCounts(max_words, notes=Notes(list(corpus.faults))), 0
    with open(file, "wb") as sentences:
        for part_file, packed, more, notes in map_in_order(write, list(enumerate(corpus.blocks)), num_proc):
            words.add(packed.unpacked())
            words.notes.add(notes.faults, notes.counts)
            num_sentences += more
            with open(part_file, "rb") as part:
                shutil.copyfileobj(part, sentences)
            part_file.unlink()
    return Sentences(file, words, num_sentences)


def _write_block(
    corpus: Corpus, space: Space, file: Path, numbered: tuple[int, Block]
) -> tuple[Path, PackedCounts, int, Notes]:
    number, block = numbered
    notes = Notes()
    part = write_sentences(map(space, corpus.read(block, notes)), file.with_suffix(f".{number}"))
    return part.file, PackedCounts(part.words.counts), part.num_sentences, notes


def train_word_vectors(
    sentences: Sentences,
    settings: dict[str, Any],
    ngrams: dict[str, int] | None = None,
    max_minutes: float | None = None,
    on_epoch_end: Callable[[int, float], None] = lambda num_epochs, seconds: None,
) -> tuple[Any, int]:
    """Train vectors with gensim; with one worker the result equals gensim's own bit for bit.

    Returns a `gensim.models.Word2Vec`, or with `ngrams` a `gensim.models.FastText`, and the number of epochs. Raises
    `InputError` if no word is frequent enough.

    Args:
        settings: Of gensim's models, by gensim's names.
        ngrams: `min_n`, `max_n` and `bucket`, for fastText.
        max_minutes: Stop after the first epoch that ends later than this.
        on_epoch_end: Called with the number of epochs and the seconds so far.
    """
    from gensim.models import FastText, Word2Vec
    from gensim.models.callbacks import CallbackAny2Vec

    class Deadline(CallbackAny2Vec):
        num_epochs, start = 0, time.monotonic()

        def on_epoch_end(self, model) -> None:
            self.num_epochs += 1
            seconds = time.monotonic() - self.start
            on_epoch_end(self.num_epochs, seconds)
            if max_minutes is not None and seconds > 60 * max_minutes:
                raise _OutOfTime

    model = Word2Vec(sg=1, **settings) if ngrams is None else FastText(sg=1, **settings, **ngrams)
    model.build_vocab_from_freq(sentences.words.counts, corpus_count=sentences.num_sentences)
    if not len(model.wv):
        raise InputError(f"no word occurs {settings['min_count']} times in the corpus, lower --min_count")
    deadline = Deadline()
    try:
        model.train(
            corpus_file=str(sentences.file),
            total_examples=sentences.num_sentences,
            total_words=sentences.words.num_words,
            epochs=settings["epochs"],
            callbacks=[deadline],
        )
    except _OutOfTime:
        if ngrams is not None:
            model.wv.adjust_vectors()  # compute word vectors from n-grams, which gensim does at the end of training
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

    def lines(row) -> Iterator[str]:
        ids = np.array(row["input_ids"])
        for line in np.split(ids, np.flatnonzero(np.isin(ids, boundary_token_ids))):
            yield " ".join(str(i) for i in line.tolist() if i not in boundary_token_ids)

    settings = {"vector_size": vector_size, "min_count": 1, "epochs": epochs, "workers": 1, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        sentences = write_sentences((list(lines(row)) for row in rows), Path(folder) / "tokens.txt")
        model, _ = train_word_vectors(sentences, settings)
    return np.array([int(word) for word in model.wv.index_to_key]), model.wv.vectors


def skip_gram_losses(
    model, sentences: Iterable[list[str]], seed: int, max_pairs: int = 200_000
) -> tuple[np.ndarray, np.ndarray]:
    """The objective on held-out text, in nats a pair: every pair of known neighbours against `negative` random words.

    Returns for each sentence the sum over its pairs and their number, up to the sentence that fills `max_pairs`.
    """
    rng = np.random.default_rng(seed)
    noise = (model.wv.expandos["count"].astype(np.float64) ** model.ns_exponent).cumsum()
    noise /= noise[-1]
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
        negatives = noise.searchsorted(rng.random((len(pairs), model.negative)), side="right")
        losses += np.logaddexp(0, np.einsum("ph,pkh->pk", vectors, outputs[negatives])).sum(axis=1)
        sums.append(losses.sum())
        num_pairs.append(len(pairs))
        if sum(num_pairs) >= max_pairs:
            break
    if not sums:
        raise InputError("no line of the held-out text has two words of the vocabulary")
    return np.array(sums), np.array(num_pairs)
