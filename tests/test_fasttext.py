"""fastText compared with gensim: the vector of every word, in the model that transformers loads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from gensim.models import FastText
from gensim.models.fasttext_inner import compute_ngrams_bytes, ft_hash_bytes
from gensim.test.utils import datapath
from tokenizers import pre_tokenizers
from transformers import AutoModel, AutoTokenizer

from toolkit.cli.dispatch import main
from toolkit.corpora.encoding import word_spacer
from toolkit.corpora.tokenization import FIRST_CONTINUATION_ID, NUM_BYTES, bert_normalizer
from toolkit.models.fasttext import BYTES, FastTextConfig, FastTextModel, ngram_hashes
from toolkit.pretraining.skip_gram import train_word_vectors, write_sentences
from toolkit.transfer.word_vectors import WORD_SETS, score_words, whole_words

SETTINGS = {"vector_size": 64, "window": 5, "negative": 5, "min_count": 5, "epochs": 2, "seed": 7, "workers": 1}
NGRAMS = {"bucket": 50_000, "min_n": 3, "max_n": 6}
UNSEEN = ["zorblifier", "Zorblifiés", "é", "ß", "~", "Q", "中", "🙂", "🙂🙃x", "ﷺ", "naïvete\u0301", "Ελληνικά"]
UNSEEN += ["y" * 3000]
IN_A_FRESH_PROCESS = """
import json, sys, numpy, toolkit, torch
from transformers import AutoModel, AutoTokenizer
folder, words, output_file = sys.argv[1:]
model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    vectors = [model(**tokenizer(word, return_tensors="pt")).last_hidden_state[0, 1] for word in json.loads(words)]
numpy.save(output_file, torch.stack(vectors).numpy())
"""


def words_of(corpus) -> list[list[str]]:
    split = pre_tokenizers.BertPreTokenizer()
    lines = corpus.read_text(encoding="utf-8").splitlines()
    return [[word for word, _ in split.pre_tokenize_str(line)] for line in lines if line.strip()]


@pytest.fixture(scope="module")
def by_hand(corpus, tmp_path_factory) -> FastText:
    file = tmp_path_factory.mktemp("by_hand") / "sentences.txt"
    file.write_text("\n".join(" ".join(words) for words in words_of(corpus)), encoding="utf-8")
    return FastText(corpus_file=str(file), sg=1, **SETTINGS, **NGRAMS)


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory) -> str:
    """A run from the command line with the same settings."""
    folder = tmp_path_factory.mktemp("fasttext") / "encoder"
    flags = ["--corpus", str(corpus), "--validation_corpus", str(corpus), "--output_dir", str(folder)]
    flags += ["--preset", "fasttext-tiny", "--workers", "1", "--seed", "7", "--num_train_epochs", "2"]
    assert main(["pretrain", "fasttext", *flags]) == 0
    return str(folder)


def vectors_of(folder: str, words: list[str]) -> np.ndarray:
    """The state of each word, as a text of its own in one batch. All pieces of a word must have the same state."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(words, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    rows = [states[i, 1 : mask.sum() - 1] for i, mask in enumerate(inputs["attention_mask"])]
    assert all(torch.equal(row, row[:1].expand_as(row)) for row in rows)
    return np.stack([row[0].numpy() for row in rows])


def test_vectors_of_known_words_equal_gensims_bit_for_bit(folder, by_hand):
    words = by_hand.wv.index_to_key
    assert np.array_equal(vectors_of(folder, words), by_hand.wv.vectors)
    assert len(AutoTokenizer.from_pretrained(folder)) == 517 + sum(len(word.encode()) > 1 for word in words)


def test_vectors_of_unseen_words_equal_gensims(folder, by_hand):
    assert not set(UNSEEN) & set(by_hand.wv.key_to_index)
    expected = np.stack([by_hand.wv[word] for word in UNSEEN])
    assert np.abs(vectors_of(folder, UNSEEN) - expected).max() < 1e-6
    assert np.abs(expected).max(axis=1).min() > 1e-3, "none of them is nothing"


def test_known_and_unseen_words_in_sentences_of_different_lengths(folder, by_hand):
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = ["The zorblifiers frobnicated in the naïvetés of 日本!", "", "the", "zorblifiers the", "~"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    split = pre_tokenizers.BertPreTokenizer()
    for i, text in enumerate(texts):
        words = [word for word, _ in split.pre_tokenize_str(text.replace("日本", "日 本"))]
        assert output.word_mask[i].sum() == len(words) + 2
        for j, word in enumerate(words):
            assert np.allclose(output.word_states[i, j + 1], by_hand.wv[word], atol=1e-6)
    assert output.last_hidden_state[inputs["attention_mask"] == 0].abs().sum() == 0
    assert torch.equal(output.hidden_states[0], output.last_hidden_state)


def test_a_text_without_pieces_and_one_that_starts_within_a_word(folder):
    model = AutoModel.from_pretrained(folder).eval()
    continuation, end = FIRST_CONTINUATION_ID + BYTES.index(0x80), FIRST_CONTINUATION_ID + BYTES.index(ord("s"))
    with torch.no_grad():
        states = model(torch.tensor([[0, 0], [continuation, end]])).last_hidden_state
    assert torch.isfinite(states).all()
    assert states[0].abs().sum() == 0


def test_a_fresh_process_gives_the_same_vectors(folder, by_hand, tmp_path):
    words = ["the", "government", *UNSEEN]
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, folder, json.dumps(words), str(tmp_path / "vectors.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(tmp_path / "vectors.npy") - np.stack([by_hand.wv[word] for word in words])).max() < 1e-6


def test_an_unknown_word_is_most_similar_to_a_rare_one(folder, by_hand):
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rarest = by_hand.wv.vectors[-(len(by_hand.wv) // 10) :]
    row = model.get_input_embeddings().weight[tokenizer.unk_token_id].detach().numpy()
    assert np.allclose(row, rarest.mean(axis=0), atol=1e-6)
    assert model.get_input_embeddings().weight[tokenizer.pad_token_id].abs().sum() == 0


def test_the_record_counts_known_words_only(folder, by_hand, corpus):
    record = json.loads(Path(folder, "results.json").read_text())
    known = [word in by_hand.wv.key_to_index for words in words_of(corpus) for word in words]
    assert record["metrics"]["known_words"]["value"] == pytest.approx(np.mean(known))
    assert not all(known)
    assert record["deterministic"] is True
    assert record["parameters"] == 64 * (len(AutoTokenizer.from_pretrained(folder)) + 50_000)


@pytest.mark.parametrize(("min_n", "max_n"), [(3, 6), (1, 4), (2, 2), (5, 9)])
def test_hashes_of_ngrams_equal_gensims(min_n, max_n):
    words = ["café", "", "a", "é", "", "日本語", "🙂", "🙂x", "<b>", "naïvete\u0301", "y" * 300, "Ελληνικά"]
    codes = torch.tensor([code for word in words for code in word.encode()])
    owners = torch.tensor([i for i, word in enumerate(words) for _ in word.encode()])
    hashes, counts = ngram_hashes(codes, owners, len(words), min_n, max_n)
    expected = [[ft_hash_bytes(ngram) for ngram in compute_ngrams_bytes(word, min_n, max_n)] for word in words]
    assert counts.tolist() == [len(of_word) for of_word in expected]
    assert hashes.tolist() == [of_ngram for of_word in expected for of_ngram in of_word]


def test_bytes_are_in_the_order_of_the_pieces():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = "".join(byte_level.pre_tokenize_str(chr(code))[0][0] for code in range(128))
    assert len(BYTES) == len(set(BYTES)) == NUM_BYTES
    assert sorted(letters) == [letters[code] for code in BYTES if code < 128]
    assert byte_level.pre_tokenize_str("é")[0][0] == "".join(
        sorted(pre_tokenizers.ByteLevel.alphabet())[BYTES.index(code)] for code in "é".encode()
    )


def test_every_table_has_a_gradient_where_all_words_are_known():
    model = FastTextModel(FastTextConfig(vocab_size=600, hidden_size=4, num_buckets=9))
    model(torch.tensor([[2, 530, 3]])).last_hidden_state.sum().backward()
    assert model.ngram_embeddings.weight.grad.abs().sum() == 0
    assert model.embeddings.weight.grad.abs().sum() > 0


def test_a_lower_casing_tokenizer_of_bytes_is_the_flag(folder, corpus, tmp_path):
    flags = ["--corpus", str(corpus), "--preset", "fasttext-tiny", "--workers", "1", "--num_train_epochs", "1"]
    flags += ["--num_buckets", "300", "--vocab_size", "200", "--min_n", "2", "--max_n", "4"]
    kind = ["--kind", "bytes", "--do_lower_case"]
    assert main(["tokenizer", "--corpus", "sample", "--output_dir", str(tmp_path / "bytes"), *kind]) == 0
    given = ["--tokenizer", str(tmp_path / "bytes")]
    assert main(["pretrain", "fasttext", "--output_dir", str(tmp_path / "a"), *flags, *given]) == 0
    assert main(["pretrain", "fasttext", "--output_dir", str(tmp_path / "b"), *flags, "--do_lower_case"]) == 0
    a, b = (tmp_path / name / "model.safetensors" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    model = AutoModel.from_pretrained(tmp_path / "a")
    assert model.ngram_embeddings.weight.shape == (300, 64)
    assert (model.config.min_n, model.config.max_n) == (2, 4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert tokenizer("THE Government")["input_ids"] == tokenizer("the government")["input_ids"]


def test_a_tokenizer_with_another_normalizer_is_refused(tmp_path, capsys):
    from tokenizers import normalizers

    from toolkit.corpora.tokenizer_training import train_tokenizer

    tokenizer = train_tokenizer((), "bytes")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.save_pretrained(tmp_path / "bytes")
    flags = ["--corpus", "sample", "--output_dir", str(tmp_path / "out"), "--tokenizer", str(tmp_path / "bytes")]
    assert main(["pretrain", "fasttext", *flags]) == 2
    assert "has the normalizer NFKC, expected BertNormalizer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_that_ends_early_leaves_vectors_made_of_ngrams(corpus, tmp_path):
    lines = word_spacer(bert_normalizer())(corpus.read_text(encoding="utf-8").split("\n"))
    sentences = write_sentences([lines], tmp_path / "sentences.txt")
    settings = {name: SETTINGS[name] for name in ("window", "negative", "min_count", "seed", "workers")}
    settings |= {"vector_size": 8, "epochs": 3, "alpha": 0.025, "max_final_vocab": None}
    model, num_epochs = train_word_vectors(sentences, settings, NGRAMS, max_minutes=1e-9)
    assert num_epochs == 1
    vectors = model.wv.vectors.copy()
    model.wv.adjust_vectors()
    assert np.array_equal(vectors, model.wv.vectors)


def test_a_comparison_includes_the_network_from_scratch(folder, tmp_path):
    flags = ["--encoders", folder, "--data", "sample", "--output_dir", str(tmp_path / "out"), "--train_sizes", "20"]
    assert main(["compare", *flags, "--seeds", "1", "--learning_rates", "1e-2", "--max_steps", "3"]) == 0
    runs = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*/*/results.json")]
    assert sorted(run["encoder"] for run in runs) == [folder, f"scratch:{folder}"]
    assert len({run["parameters"] for run in runs}) == 1


# Sets of words


def test_whole_words_are_those_of_gensim_and_the_bytes(folder, by_hand):
    letters = {chr(code) for code in range(33, 127)}
    words = whole_words(folder, AutoTokenizer.from_pretrained(folder))
    assert [word for word in words if word not in letters] == [w for w in by_hand.wv.key_to_index if w not in letters]
    assert letters < set(words)


def test_similarity_uses_all_words_of_the_set(folder, by_hand, tmp_path):
    """Compare with gensim's vector of each word, in the first spelling that is in its vocabulary."""
    from scipy.stats import spearmanr

    known = {word.upper(): word for word in reversed(by_hand.wv.index_to_key)}
    lines = Path(datapath(WORD_SETS["wordsim353"])).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if not line.startswith("#")]
    spelled = {word.upper(): word for a, b, _ in pairs for word in (a, b)} | known

    def cosine(a: str, b: str) -> float:
        a, b = by_hand.wv[spelled[a.upper()]], by_hand.wv[spelled[b.upper()]]
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = spearmanr([float(score) for *_, score in pairs], [cosine(a, b) for a, b, _ in pairs])[0]
    metrics = score_words(folder, "wordsim353", tmp_path / "score.json")["metrics"]
    assert metrics["coverage"]["value"] == 1
    assert metrics["spearman"]["value"] == pytest.approx(expected, abs=1e-3)


def test_analogies_include_unseen_words(folder, tmp_path):
    record = score_words(folder, "analogies", tmp_path / "score.json")
    assert record["metrics"]["coverage"]["value"] == 1
    assert 0 < record["metrics"]["syntactic_accuracy"]["value"] < 1
