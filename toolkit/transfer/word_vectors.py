"""Intrinsic evaluation of word vectors: word similarity and analogies.

gensim installs the data sets and computes their figures: WordSim-353 of Finkelstein et al. (2002),
https://doi.org/10.1145/503104.503110, SimLex-999 of Hill, Reichart & Korhonen (2015), https://aclanthology.org/J15-4004,
and the analogies of Mikolov, Chen, Corrado & Dean (2013), https://arxiv.org/abs/1301.3781.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.corpora.tokenization import is_byte_level, load_tokenizer
from toolkit.errors import InputError
from toolkit.hub.download import local_copy
from toolkit.metrics.intervals import Interval, bootstrap_statistic, ratio_interval
from toolkit.modalities import MODALITIES
from toolkit.models.families import OUTPUT_WORDS
from toolkit.runs.results import Stopwatch, write_score
from toolkit.training.distributed import make_accelerator
from toolkit.transfer.encoders import load_encoder

WORD_SETS = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt", "analogies": "questions-words.txt"}
WORDS_PER_BATCH = 256
MIN_PAIRS = 10  # with fewer pairs a correlation means nothing
TOP_LAYER = -1


def score_words(folder: str, name: str, output_file: Path, layer: int | None = None) -> dict[str, Any]:
    """Evaluate the word vectors of an encoder, a folder or Hub id, on the data set `name`, one of `WORD_SETS`.

    The record is also written to `output_file`. As in gensim, case is ignored: of the spellings of a word the first
    one in the vocabulary counts. Raises `InputError` if the encoder knows too few of the words or has no such layer.
    """
    from gensim.test.utils import datapath

    layer = TOP_LAYER if layer is None else layer
    accelerator, stopwatch = make_accelerator(), Stopwatch()
    path, is_analogies = datapath(WORD_SETS[name]), name == "analogies"
    model, tokenizer = load_encoder(folder, "AutoModel", MODALITIES["text"])
    model.to(accelerator.device).eval()
    items = [fields for _, fields in _read_set(path)]
    asked = {word.upper(): word for fields in items for word in fields[: 4 if is_analogies else 2]}
    vocabulary = whole_words(folder, tokenizer)
    if not is_analogies:
        vocabulary = [word for word in vocabulary if word.upper() in asked]
    elif not vocabulary:
        raise InputError(f"{folder}: no {OUTPUT_WORDS} in this folder, the words that answers are chosen from")
    spelled = {word.upper() for word in vocabulary}
    words = [*vocabulary, *(word for key, word in asked.items() if key not in spelled)]
    vectors = word_vectors(model, tokenizer, words, layer)
    return write_score(
        output_file,
        stopwatch,
        is_main=accelerator.is_main_process,
        task="analogies" if is_analogies else "similarity",
        dataset=name,
        split="all",
        n=len(items),
        metrics=(analogies if is_analogies else similarity)(vectors, path),
        encoder=folder,
        parameters=model.num_parameters(),
        layer=layer,
    )


def whole_words(folder: str, tokenizer) -> list[str]:
    """The whole words in the vocabulary, in its order, usually the most frequent first.

    For ELMo these are the words that it predicts (none if its folder lacks them). For other encoders they are the
    vocabulary entries that the tokenizer does not split.
    """
    if is_byte_level(tokenizer):
        if not (local_copy(folder) / OUTPUT_WORDS).is_dir():
            return []
        tokenizer = load_tokenizer(local_copy(folder) / OUTPUT_WORDS)
    ids = sorted(set(tokenizer.get_vocab().values()).difference(tokenizer.all_special_ids))
    entries = [entry.strip() for entry in tokenizer.batch_decode([[i] for i in ids])]
    alone = tokenizer(entries, add_special_tokens=False)["input_ids"]
    return [entry for entry, i, read in zip(entries, ids, alone, strict=True) if read == [i]]


@torch.no_grad()
def word_vectors(model, tokenizer, words: list[str], layer: int = TOP_LAYER):
    """The vectors of words: the mean hidden state of a layer over the tokens of a word encoded alone.

    The top layer is the default, since no other is clearly better: those of all-MiniLM-L6-v2 reach 0.72 to 0.75 on
    WordSim-353 (top 0.75) and 0.47 to 0.50 on SimLex-999 (top 0.50).

    The model has to be in evaluation mode. Words that have only special tokens, such as those that word2vec lacks, are
    left out. Layer 0 is that of the embeddings (ELMo: characters); negative numbers count from the top. Returns gensim
    `KeyedVectors`. Raises `InputError` if there is no such layer.
    """
    from gensim.models import KeyedVectors

    special = torch.tensor(tokenizer.all_special_ids, device=model.device)
    known, vectors = [], []
    for start in range(0, len(words), WORDS_PER_BATCH):
        part = words[start : start + WORDS_PER_BATCH]
        inputs = tokenizer(part, padding=True, return_tensors="pt").to(model.device)
        layers = model(**inputs, output_hidden_states=True).hidden_states
        if not -len(layers) <= layer < len(layers):
            raise InputError(f"--layer {layer}: the encoder has the layers 0 to {len(layers) - 1}")
        pieces = torch.isin(inputs["input_ids"], special, invert=True)  # (words, pieces)
        sums = (layers[layer].float() * pieces.unsqueeze(-1)).sum(dim=1)  # (words, hidden_size)
        counts = pieces.sum(dim=1)
        known += [word for word, count in zip(part, counts.tolist(), strict=True) if count]
        vectors.append((sums[counts > 0] / counts[counts > 0].unsqueeze(1)).cpu().numpy())
    keyed = KeyedVectors(vectors[0].shape[1])
    keyed.add_vectors(known, np.concatenate(vectors))
    return keyed


def similarity(vectors, path: str) -> dict[str, Interval]:
    """Spearman's rank correlation of cosines with human ratings, and the fraction of pairs with both words known."""
    from scipy.stats import spearmanr

    keys = {key.upper(): key for key in reversed(vectors.index_to_key)}
    pairs = [(keys.get(a.upper()), keys.get(b.upper()), float(score)) for _, (a, b, score) in _read_set(path)]
    known = [(vectors.similarity(a, b), score) for a, b, score in pairs if a and b]
    if len(known) < MIN_PAIRS:
        raise InputError(f"{Path(path).name}: the encoder knows {len(known)} of {len(pairs)} pairs of words, too few")
    cosines, scores = np.array(known).T
    spearman = bootstrap_statistic(lambda draw: spearmanr(scores[draw], cosines[draw])[0], len(known)).interval()
    return {
        "spearman": spearman | {"value": float(vectors.evaluate_word_pairs(path)[1][0])},
        "coverage": ratio_interval([bool(a and b) for a, b, _ in pairs], np.ones(len(pairs))),
    }


def analogies(vectors, path: str) -> dict[str, Interval]:
    """Accuracy on "a is to b as c is to …", and the fraction of questions with all words known, which are answered.

    The bootstrap resamples questions that share `a` and `b` together. A kind of analogies without any answered
    question has no figure.
    """
    questions = Counter((section, a.upper(), b.upper()) for section, (a, b, _, _) in _read_set(path))
    sections = vectors.evaluate_word_analogies(path)[1][:-1]  # the last one is their sum
    right, wrong = (
        Counter((section["section"], a, b) for section in sections for a, b, _, _ in section[outcome])
        for outcome in ("correct", "incorrect")
    )
    known = right + wrong
    if not known:
        raise InputError(f"{Path(path).name}: the encoder knows all words of none of its questions")
    kinds = {
        "accuracy": list(questions),
        "semantic_accuracy": [pair for pair in questions if not pair[0].startswith("gram")],
        "syntactic_accuracy": [pair for pair in questions if pair[0].startswith("gram")],
    }
    metrics = {
        name: ratio_interval([right[pair] for pair in pairs], [known[pair] for pair in pairs])
        for name, pairs in kinds.items()
        if any(known[pair] for pair in pairs)
    }
    return metrics | {"coverage": ratio_interval([known[pair] for pair in questions], list(questions.values()))}


def _read_set(path: str) -> Iterator[tuple[str, list[str]]]:
    """The section and the fields of each line of a data set."""
    section = ""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(":"):
            section = line.lstrip(": ")
        elif not line.startswith("#"):
            yield section, line.split()
