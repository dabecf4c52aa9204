"""Cleaning of a corpus: repaired text, rows that are left out, and duplicates, all counted."""

import random
from functools import partial

import pytest
from test_corpus import read_all, small_blocks, some_texts, write  # noqa: F401 (a fixture)

from toolkit.corpora import duplicates
from toolkit.corpora.cleaning import Cleaning, Notes
from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.duplicates import DuplicateSearch


def brute_force(texts: list[str], alike) -> set[int]:
    return {i for i, text in enumerate(texts) if text and any(alike(text, other) for other in texts[:i] if other)}


@pytest.mark.usefixtures("small_blocks")
def test_exact_duplicates_equal_those_found_with_a_dictionary(tmp_path):
    texts = some_texts(size=800)
    corpus = open_corpus(str(write(tmp_path, texts, "txt")), search=DuplicateSearch("exact"), num_proc=2)
    seen, expected = set(), []
    for text in texts:
        if not text or text not in seen:
            expected.append(text)
        seen.add(text)
    notes = Notes()
    found = read_all(corpus, notes)
    assert found == expected
    assert notes.counts == {"left out, like an earlier one": len(texts) - len(expected)}
    num_first = len(list(corpus.rows(0, 100).texts()))
    assert [*corpus.rows(100, 300).texts(), *corpus.rows(300, 800).texts()] == expected[num_first:]


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
@pytest.mark.usefixtures("small_blocks")
def test_near_duplicates_equal_those_found_by_jaccard_similarity(tmp_path, suffix):
    """Documents in several blocks whose similarities are well above or below the threshold."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(2000)]
    documents = [rng.choices(words, k=60) for _ in range(60)]
    copies = []
    for document in rng.sample(documents, 25):
        copy = list(document)
        copy[rng.randrange(60)] = "other"  # 5 of 56 shingles: a similarity of 0.84
        copies.append(copy)
    halves = [document[:30] + rng.choices(words, k=30) for document in rng.sample(documents, 15)]
    texts = documents + [part for pair in zip(copies, halves + copies, strict=False) for part in pair]
    texts = [" ".join(words[:20]) + "\n" + " ".join(words[20:]) for words in texts]

    def shingles(text: str) -> set[tuple[str, ...]]:
        found = text.split()
        return {tuple(found[i : i + 5]) for i in range(len(found) - 4)}

    def alike(one: str, other: str) -> bool:
        return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other)) >= 0.7

    expected = brute_force(texts, alike)
    assert len(expected) > 30
    if suffix == "txt":
        path = tmp_path / "a.txt"
        path.write_text("\n\n".join(texts))
    else:
        path = write(tmp_path, texts, suffix)
    search = DuplicateSearch("near", "document", similarity=0.7)
    corpus = open_corpus(str(path), search=search, num_proc=2)
    assert len(corpus.blocks) > 3
    kept = "\n".join(text for text in corpus.texts() if text)
    assert kept == "\n".join(text for i, text in enumerate(texts) if i not in expected)


def test_repaired_and_left_out_lines_are_counted(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("schÃ¶n and good\n\nshort\n1 2 3 4 5 6\nas it is here\nयह हिन्दी है\n", encoding="utf-8")
    cleaning = Cleaning(fix_text=True, min_words=2, min_letters=0.9)
    corpus, notes = open_corpus(str(path), cleaning=cleaning), Notes()
    assert list(corpus.read(corpus.blocks[0], notes)) == [["schön and good", "", "as it is here", "यह हिन्दी है"]]
    assert sorted(notes.counts.values()) == [1, 1, 1]
    assert corpus.key != open_corpus(str(path)).key


@pytest.mark.parametrize("function", ["np.save", "shutil.rmtree"])
@pytest.mark.usefixtures("small_blocks")
def test_an_interrupted_search_can_be_repeated(tmp_path, monkeypatch, function):
    """Interrupted while it writes its results, or while it removes the data that it compared."""
    texts = some_texts(size=300)
    open_it = partial(open_corpus, str(write(tmp_path, texts, "txt")), search=DuplicateSearch("near", "line"))
    with monkeypatch.context() as patched:
        patched.setattr(f"{duplicates.__name__}.{function}", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_it()
    seen: set[str] = set()
    kept = [text for text in open_it().texts() if text]
    assert len(kept) < len([text for text in texts if text])
    assert not any(text in seen or seen.add(text) for text in kept)


def test_documents_that_are_too_long_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "BYTES_A_LINE", 20)
    (tmp_path / "a.txt").write_text("one two three four\nfive six seven eight\n\n" * 2)
    corpus = open_corpus(str(tmp_path / "a.txt"), search=DuplicateSearch("near", "document"))
    assert len(list(corpus.texts())) == 6
