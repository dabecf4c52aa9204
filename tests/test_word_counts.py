"""Word counts in bounded memory, and tokenizers trained on them, which equal the library's while all words fit."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from in_process import run_here

from toolkit.corpora import blocks
from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.encoding import word_spacer
from toolkit.corpora.tokenization import bert_normalizer
from toolkit.corpora.tokenizer_training import train_on_corpus
from toolkit.corpora.word_counts import (
    LETTERS_A_WORD,
    NUM_REGISTERS,
    PackedCounts,
    WordCounts,
    add_distinct,
    count_words,
    num_distinct,
)


@pytest.fixture
def zipf(tmp_path, monkeypatch):
    """Some frequent words among thousands that occur once or twice, in several blocks, and the count of each word."""
    monkeypatch.setattr(blocks, "BYTES_A_BLOCK", 30_000)
    rng = random.Random(0)
    lines = [
        " ".join([f"frequent{int(rng.paretovariate(0.8))}" for _ in range(6)] + [f"rare{rng.randrange(40_000)}"])
        for _ in range(9_000)
    ]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(lines))
    return open_corpus(str(path)), Counter(word for line in lines for word in line.split())


@pytest.mark.parametrize("num_proc", [1, 3])
def test_counts_are_exact_while_words_fit(zipf, num_proc):
    corpus, expected = zipf
    assert len(corpus.blocks) > 5
    found = count_words(corpus, word_spacer(bert_normalizer()), len(expected), num_proc)
    assert list(found.counts.items()) == list(expected.items()), "in the order in which they first occur"
    assert found.num_words == expected.total()
    assert found.letters == {letter for word in expected for letter in word[1:]}
    assert found.left_out() == []


def test_the_rarest_words_are_dropped_and_counted_beyond_the_limit(zipf):
    corpus, expected = zipf
    found = [count_words(corpus, word_spacer(bert_normalizer()), 3_000, num_proc) for num_proc in (1, 3)]
    assert list(found[0].counts.items()) == list(found[1].counts.items())
    counts = found[0].counts
    assert len(counts) <= 3_000
    assert [word for word, _ in expected.most_common(50)] == [word for word, _ in counts.most_common(50)]
    assert all(count <= expected[word] for word, count in counts.items())
    assert all(counts[word] >= count - 30 for word, count in expected.most_common(50))
    assert found[0].dropped_share == pytest.approx(1 - counts.total() / expected.total())
    really_dropped = len(expected) - len(counts)
    assert found[0].num_dropped == pytest.approx(really_dropped, rel=0.1)
    assert found[0].letters == {letter for word in expected for letter in word[1:]}, "also those of dropped words"


def test_long_words_use_the_memory_of_several():
    words = WordCounts(max_words=1_000)
    for number in range(900):
        words.add(Counter({f"{number}x" * 8: 1, "frequent": 2, f"{number % 3}": 1}))
    assert len(words.counts) == 904, "words of ordinary length all fit"
    for number in range(900):
        words.add(Counter({f"{number}" * 1000: 1, "frequent": 2, f"{number % 3}": 1}))
        assert sum(map(len, words.counts)) < 1_000 * LETTERS_A_WORD + 3_100
    assert words.counts.keys() & {"frequent", "0", "1", "2"} == {"frequent", "0", "1", "2"}
    assert words.counts["frequent"] == 3_600
    assert words.num_dropped > 800


@pytest.mark.parametrize("number", [0, 1, 100, 5_000, 300_000])
def test_distinct_words_are_counted_in_little_memory(number):
    registers = np.zeros(NUM_REGISTERS, dtype=np.int8)
    for _ in range(2):
        add_distinct(registers, (f"string {i}" for i in range(number)))
    assert num_distinct(registers) == pytest.approx(number, rel=0.02)
    assert registers.nbytes == 1 << 16


def test_registers_equal_datasketch():
    from datasketch import HyperLogLogPlusPlus
    from xxhash import xxh3_64_intdigest

    registers, by_library = np.zeros(NUM_REGISTERS, dtype=np.int8), HyperLogLogPlusPlus(16, hashfunc=xxh3_64_intdigest)
    for word in map(str, range(5_000)):
        by_library.update(word.encode())
    add_distinct(registers, map(str, range(5_000)))
    assert (registers == by_library.reg).all()


def test_counts_are_passed_between_processes():
    counts = Counter({"a": 1, "Łódź": 2**40, "日": 3})
    assert list(PackedCounts(counts).unpacked().items()) == list(counts.items())
    assert PackedCounts(Counter()).unpacked() == {}
    words = WordCounts(max_words=1)
    words.add(Counter("a"))
    assert words.counts == {"a": 1}


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "word"])
def test_the_tokenizer_equals_the_library(corpus, kind):
    """Compare with the library trained on the lines: equal entries and ids if the letters have the toolkit's order."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    ours, words = train_on_corpus(open_corpus(str(corpus)), kind, bert_normalizer(True), 900)
    assert words.left_out() == []
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    settings = {"vocab_size": 900, "min_frequency": 2, "show_progress": False}
    if kind == "word":
        by_hand = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        trainer = trainers.WordLevelTrainer(special_tokens=special, **settings)
    else:
        by_hand = Tokenizer(models.WordPiece(unk_token="[UNK]") if kind == "wordpiece" else models.BPE())
        special += [entry for entry in sorted(ours.vocab, key=ours.vocab.get) if len(entry) == 3 and entry[:2] == "##"]
        trainer_class = trainers.WordPieceTrainer if kind == "wordpiece" else trainers.BpeTrainer
        trainer = trainer_class(special_tokens=special, continuing_subword_prefix="##", **settings)
    by_hand.normalizer, by_hand.pre_tokenizer = bert_normalizer(True), pre_tokenizers.BertPreTokenizer()
    with open(corpus, encoding="utf-8") as lines:
        by_hand.train_from_iterator(lines, trainer)
    assert ours.get_vocab() == by_hand.get_vocab()
    if kind == "bpe":
        merges = [json.loads(tokenizer.to_str())["model"]["merges"] for tokenizer in (ours.backend_tokenizer, by_hand)]
        assert merges[0] == merges[1]


def test_too_little_memory_is_refused(corpus, tmp_path):
    flags = ["--corpus", corpus, "--output_dir", tmp_path / "out", "--memory_gb", "0.3"]
    done = run_here("tokenizer", *flags)
    assert done.returncode == 2
    assert "--memory_gb 0.3: too little for the program itself" in done.stderr
