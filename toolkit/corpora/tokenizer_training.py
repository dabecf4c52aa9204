"""Train tokenizers on counts of words, so that a corpus is read once, by several processes, in bounded memory.

WordPiece is by Schuster & Nakajima (2012), BPE by Sennrich, Haddow & Birch (2016), https://arxiv.org/abs/1508.07909;
`tokenizers` trains both.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, get_args

from toolkit.corpora.arguments import MEMORY_GB
from toolkit.corpora.corpus import Corpus
from toolkit.corpora.encoding import word_spacer
from toolkit.corpora.tokenization import (
    CONTINUATION,
    SPECIAL_TOKENS,
    SUBWORDS,
    TokenizerKind,
    bert_normalizer,
    build_byte_tokenizer,
    build_tokenizer,
    cutter,
    word_level_tokenizer,
    wrap,
)
from toolkit.corpora.word_counts import WordCounts, count_words, count_words_of
from toolkit.corpora.workers import OnDone, available_cores
from toolkit.errors import InputError

# Memory as measured: of the program, of each process that counts, of each word counted or trained on.
BYTES_WITHOUT_WORDS, BYTES_A_PROCESS, BYTES_COUNTED, BYTES_TRAINED = 350_000_000, 120_000_000, 200, 900
TEXTS_A_BATCH = 1000
MAX_LENGTH = 512  # of a text, in pieces of words
WORDS_A_TEXT = 10_000  # of a text that the library is trained on


def train_tokenizer(
    texts: Iterable[str],
    kind: TokenizerKind,
    vocab_size: int = 8192,
    min_frequency: int = 2,
    do_lower_case: bool = False,
    strip_accents: bool = False,
):
    """Train a tokenizer on texts, which are not read for `bytes`. The same texts give the same tokenizer.

    `vocab_size` is a maximum and includes the special tokens. Words, or merges of pieces, that occur fewer than
    `min_frequency` times are left out. Raises `InputError` if there is no such kind or the vocabulary is too small.
    """
    _check_vocabulary(kind, vocab_size)
    normalizer = bert_normalizer(do_lower_case, strip_accents)
    rest = iter(() if kind == "bytes" else texts)
    words = count_words_of(iter(lambda: list(islice(rest, TEXTS_A_BATCH)), []), word_spacer(normalizer))
    return _train_on_words(words, kind, vocab_size, min_frequency, normalizer)


def train_on_corpus(
    corpus: Corpus,
    kind: TokenizerKind,
    normalizer,
    vocab_size: int = 8192,
    min_frequency: int = 2,
    memory_gb: float = MEMORY_GB,
    num_proc: int | None = None,
    on_block: OnDone | None = None,
):
    """Train a tokenizer on a corpus of any size, in bounded memory. Returns it and the counts of words.

    While all distinct words fit into `memory_gb`, the tokenizer is that of `train_tokenizer`; else the rarest are
    dropped. `on_block` is called as by `count_words`.
    """
    _check_vocabulary(kind, vocab_size)
    words = WordCounts()
    if kind != "bytes":
        max_words = words_that_fit(memory_gb, BYTES_COUNTED if kind == "word" else BYTES_TRAINED)
        room = memory_gb * 1e9 - BYTES_WITHOUT_WORDS - max_words * BYTES_COUNTED
        num_proc = max(1, min(num_proc or available_cores(), int(room / BYTES_A_PROCESS)))
        words = count_words(corpus, word_spacer(normalizer), max_words, num_proc, on_block)
    return _train_on_words(words, kind, vocab_size, min_frequency, normalizer), words


def words_that_fit(memory_gb: float, bytes_a_word: int = BYTES_COUNTED) -> int:
    """How many distinct words fit into memory, beside the program and two processes that count.

    Raises `InputError` if there is no room for words.
    """
    room = memory_gb * 1e9 - BYTES_WITHOUT_WORDS
    if bytes_a_word == BYTES_COUNTED:
        room -= 2 * BYTES_A_PROCESS
    if room <= 0:
        raise InputError(f"--memory_gb {memory_gb}: too little for the program itself, expected 0.7 or more")
    return int(room / bytes_a_word)


def _check_vocabulary(kind: TokenizerKind, vocab_size: int) -> None:
    """Raises `InputError` if there is no such kind of tokenizer, or it cannot have so few entries."""
    if kind not in get_args(TokenizerKind):
        raise InputError(f"--kind {kind}: expected one of {', '.join(get_args(TokenizerKind))}")
    special = len(SPECIAL_TOKENS)
    if kind != "bytes" and vocab_size <= special:
        raise InputError(f"--vocab_size {vocab_size}: expected at least {special + 1}, {special} are special tokens")


def _train_on_words(words: WordCounts, kind: TokenizerKind, vocab_size: int, min_frequency: int, normalizer):
    if kind == "bytes":
        return build_byte_tokenizer(normalizer)
    if kind == "word":
        frequent = [word for word, count in words.counts.items() if count >= min_frequency]
        frequent.sort(key=lambda word: (-words.counts[word], word))
        return word_level_tokenizer(frequent[: vocab_size - len(SPECIAL_TOKENS)], normalizer)
    return wrap(_train_subwords(words, kind, vocab_size, min_frequency, normalizer), MAX_LENGTH)


def _train_subwords(words: WordCounts, kind: TokenizerKind, vocab_size: int, min_frequency: int, normalizer):
    """Train so that the same words give the same vocabulary.

    The library numbers the letters that continue a word in the order of a hash table, and the numbers decide between
    merges of equal count (https://github.com/huggingface/tokenizers/issues/1794). As special tokens the letters are
    numbered in our order. A model with the trained vocabulary then replaces the one that has such special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model_class: Any = models.WordPiece if kind == "wordpiece" else models.BPE
    trainer_class = trainers.WordPieceTrainer if kind == "wordpiece" else trainers.BpeTrainer
    trainer = trainer_class(
        special_tokens=[*SPECIAL_TOKENS.values(), *(CONTINUATION + letter for letter in sorted(words.letters))],
        continuing_subword_prefix=CONTINUATION,
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        show_progress=False,
    )
    trained = Tokenizer(model_class(**SUBWORDS))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trained.train_from_iterator(_repeated(words.counts), trainer)
    model = json.loads(trained.to_str())["model"]
    merges = {"merges": [tuple(pair) for pair in model["merges"]]} if kind == "bpe" else {}
    tokenizer = build_tokenizer(model_class(model["vocab"], **merges, **SUBWORDS), normalizer)
    if kind == "wordpiece":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, cutter()])
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _repeated(counts: Mapping[str, int]) -> Iterator[str]:
    """Texts in which each word occurs as often as its count says: the library trains on text alone."""
    for word, count in counts.items():
        while count > 0:
            yield " ".join([word] * min(count, WORDS_A_TEXT))
            count -= WORDS_A_TEXT
