"""Tokenizers: training, encoding, and a round trip through a folder."""

import random

import pytest
from in_process import run_here
from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer

from toolkit.corpora.encoding import LineEncoder, token_spacer, word_spacer
from toolkit.corpora.text import load_text
from toolkit.corpora.tokenization import (
    FIRST_CONTINUATION_ID,
    bert_normalizer,
    is_byte_level,
    load_tokenizer,
    spells_words,
    with_whole_words,
    word_level_tokenizer,
)
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.errors import InputError

KINDS = ("wordpiece", "bpe", "word", "bytes")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return load_text("sample")["text"][:300]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_a_folder(texts, kind, tmp_path):
    tokenizer = train_tokenizer(texts, kind, vocab_size=600)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Zorblified naïve cafés, isn't it? €5"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert len(loaded) == (517 if kind == "bytes" else 600)
    assert [loaded.pad_token_id, loaded.unk_token_id, loaded.cls_token_id] == [0, 1, 2]
    assert loaded.convert_ids_to_tokens(loaded("a b")["input_ids"])[0] == "[CLS]"


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_point_at_the_words(texts, kind):
    text = "The Zorblifiers' naïve plan, 12.5%"
    encoding = train_tokenizer(texts, kind, vocab_size=600)(text, return_offsets_mapping=True)
    spans: dict[int, tuple[int, int]] = {}
    for word, (start, end) in zip(encoding.word_ids(), encoding["offset_mapping"], strict=True):
        if word is not None:
            spans[word] = (min(start, spans.get(word, (start, end))[0]), end)
    expected = ["The", "Zorblifiers", "'", "naïve", "plan", ",", "12", ".", "5", "%"]
    assert [text[start:end] for start, end in spans.values()] == expected


def test_wordpiece_equals_the_library(texts):
    """The same entries as from the `tokenizers` library, whose ids change from run to run."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    by_hand = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    by_hand.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    by_hand.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=900, min_frequency=2, special_tokens=special, show_progress=False)
    by_hand.train_from_iterator(texts, trainer)
    ours = train_tokenizer(texts, "wordpiece", vocab_size=900, do_lower_case=True)
    different = set(ours.get_vocab()) ^ set(by_hand.get_vocab())
    # Letters are the same; between the last merges, of equal count, the library's changing numbers decide.
    assert len(different) < 0.02 * 900
    assert all(len(entry.removeprefix("##")) > 1 for entry in different)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "word"])
def test_the_same_texts_give_the_same_tokenizer(texts, kind):
    first, second = (train_tokenizer(texts, kind, vocab_size=900).backend_tokenizer.to_str() for _ in range(2))
    assert first == second
    assert "##" not in str(train_tokenizer(texts, kind, vocab_size=900).all_special_tokens)


def test_bytes_that_continue_a_word_are_marked(texts):
    tokenizer = train_tokenizer((), "bytes")
    assert is_byte_level(tokenizer)
    assert not is_byte_level(train_tokenizer(texts, "bpe", 517))
    encoding = tokenizer("Né, so", add_special_tokens=False)
    assert encoding.tokens() == ["N", "##Ã", "##©", ",", "s", "##o"]
    continues = [token_id >= FIRST_CONTINUATION_ID for token_id in encoding["input_ids"]]
    assert continues == [False, True, True, False, False, True]


def test_every_character_has_bytes():
    tokenizer = train_tokenizer((), "bytes")
    ids = tokenizer("日本 🙂 ﷽ ß \u0301", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize(
    ("do_lower_case", "strip_accents"),
    [
        (True, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((False, False), (False, True), (True, False))),
    ],
)
def test_batches_of_texts_are_split_like_single_texts(do_lower_case, strip_accents):
    """Every Unicode character, between letters and beside another character; multi-line texts and empty texts."""
    from tokenizers import pre_tokenizers

    normalizer, pre_tokenizer = bert_normalizer(do_lower_case, strip_accents), pre_tokenizers.BertPreTokenizer()
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    texts = ["x".join(characters[i : i + 500]) for i in range(0, len(characters), 500)]
    texts += ["two\nlines\r\n, a\ttab", "", " \n ", "ÎLE ΣΟΦΟΣ İstanbul", "".join(characters[:0x3000])]
    words = [line.split() for line in word_spacer(normalizer)(texts)]
    by_library = [
        [word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))] for text in texts
    ]
    assert words == by_library
    assert words[-5:-2] == [["two", "lines", ",", "a", "tab"], [], []]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_texts_are_tokenized_like_single_texts(texts, kind):
    tokenizer = train_tokenizer(texts, kind, vocab_size=600)
    assert token_spacer(tokenizer)(texts[:50]) == [" ".join(tokenizer.tokenize(text)) for text in texts[:50]]


WHOLE_WORDS = ["the", "café", "中", "a", "🙂x"]


def test_whole_words_are_one_piece_and_all_others_are_bytes(tmp_path):
    tokenizer, ids = with_whole_words(train_tokenizer((), "bytes"), WHOLE_WORDS)
    assert [ids[word] for word in ("the", "café", "中", "🙂x")] == [517, 518, 519, 520]
    assert ids["a"] == tokenizer.convert_tokens_to_ids("a") < FIRST_CONTINUATION_ID, "the byte is the word"
    assert spells_words(tokenizer)
    assert not is_byte_level(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "the café cafés 中a thé 🙂xy 🙂x."
    encoding = loaded(text, add_special_tokens=False, return_offsets_mapping=True)
    pieces: dict[int, list[int]] = {}
    for piece, word in zip(encoding["input_ids"], encoding.word_ids(), strict=True):
        pieces.setdefault(word, []).append(piece)
    assert [len(of_word) for of_word in pieces.values()] == [1, 1, 6, 1, 1, 4, 6, 1, 1]
    known = [of_word[0] for of_word in pieces.values() if len(of_word) == 1]
    assert known == [517, 518, 519, ids["a"], 520, loaded.convert_tokens_to_ids(".")]
    assert encoding["offset_mapping"][1] == (4, 8)
    assert loaded.decode(encoding["input_ids"]) == "the café cafés 中 a thé 🙂xy 🙂x ."
    assert loaded.convert_tokens_to_ids("[UNK]") not in encoding["input_ids"]


def test_lower_case_and_accents_are_options(texts):
    assert word_spacer(bert_normalizer())(["Été IS"]) == ["Été IS"]
    assert word_spacer(bert_normalizer(do_lower_case=True))(["Été IS"]) == ["été is"]
    stripped = train_tokenizer(["ete is"] * 3, "word", do_lower_case=True, strip_accents=True)
    assert stripped.tokenize("Été IS") == ["ete", "is"]


@pytest.mark.parametrize("kind", KINDS)
def test_lines_are_encoded_as_the_tokenizer_encodes_them(texts, kind):
    """With and without a lookup of words: with added tokens, and with kept control characters."""
    plain = train_tokenizer(texts, kind, vocab_size=600)
    added = train_tokenizer(texts, kind, vocab_size=600)
    added.add_tokens([AddedToken("<ent>", special=True, normalized=False)])
    keeps = train_tokenizer(texts, kind, vocab_size=600)
    keeps.backend_tokenizer.normalizer = normalizers.BertNormalizer(clean_text=False, lowercase=False)
    lines = [*texts, "hello <ent> world", "a\x1cb \x85 c", "a [SEP] b", "", "  ", "x" * 120, "日本 café 🙂"]
    for tokenizer in (plain, added, keeps):
        ids, lengths = LineEncoder(tokenizer)(lines)
        kept = [line for line in lines if line.strip()]
        expected = tokenizer(kept, add_special_tokens=False, verbose=False)["input_ids"]
        assert lengths.tolist() == list(map(len, expected))
        assert ids.tolist() == [token for of_line in expected for token in of_line]


def test_long_words_are_cut_and_no_letter_is_lost(tmp_path):
    """Thai has spaces between clauses alone: a word of more than 100 letters would be one unknown piece."""
    syllables = ["ผู้", "หญิง", "ที่", "อยู่", "บ้าน", "น้ำ", "จาก", "ร้อน", "มาก", "ทำ", "งาน", "แล้ว"]
    rng = random.Random(0)
    clauses = ["".join(rng.choices(syllables, k=rng.randrange(5, 90))) for _ in range(400)]
    assert sum(len(clause) for clause in clauses if len(clause) > 100) > sum(map(len, clauses)) / 2
    (tmp_path / "thai.txt").write_text("\n".join(" ".join(clauses[n : n + 4]) for n in range(0, 400, 4)))
    flags = ["--corpus", tmp_path / "thai.txt", "--vocab_size", "400", "--output_dir"]
    done = run_here("tokenizer", *flags, tmp_path / "tokenizer")
    assert done.returncode == 0, done.stderr
    assert " 0.0% unknown" in done.stdout
    assert done.stderr.endswith("0.0% of the pieces are unknown, 0.0% of the letters are lost\n")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    for clause in clauses:
        pieces = tokenizer.tokenize(clause)
        assert "".join(piece.removeprefix("##") for piece in pieces) == clause


def test_the_share_of_lost_letters_is_said(encoders, tmp_path):
    """A tokenizer of English on Greek: each word is one unknown piece, and all its letters are lost."""
    greek, english = ["αβγδε"] * 3, ["the"] * 7
    (tmp_path / "mixed.txt").write_text("\n".join([" ".join(greek + english)] * 40))
    flags = ["--corpus", tmp_path / "mixed.txt", "--tokenizer", encoders["bert"], "--output_dir", tmp_path / "out"]
    done = run_here("prepare", "bert", *flags)
    assert done.returncode == 0, done.stderr
    said = f"warning: {3 / 10:.1%} of the pieces are unknown, {15 / 36:.1%} of the letters are lost"
    assert said in done.stderr


def test_words_are_sorted_by_frequency():
    tokenizer = train_tokenizer(["b b b a a c"], "word", min_frequency=2)
    assert tokenizer.convert_ids_to_tokens([5, 6]) == ["b", "a"]
    assert tokenizer.tokenize("a c") == ["a", "[UNK]"]
    assert word_level_tokenizer(["x", "y"], bert_normalizer()).convert_tokens_to_ids(["x", "y", "z"]) == [5, 6, 1]


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match="no tokenizer in this folder"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="at least 6"):
        train_tokenizer(["a"], "wordpiece", vocab_size=5)
