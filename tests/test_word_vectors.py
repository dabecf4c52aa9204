"""Scores of word vectors, compared with gensim's and with calculations by hand."""

import json

import numpy as np
import pytest
import torch
from conftest import FAMILIES
from gensim.models import KeyedVectors, Word2Vec
from gensim.test.utils import datapath
from in_process import error_of, run_here
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from toolkit.cli.dispatch import main
from toolkit.errors import InputError
from toolkit.modalities import MODALITIES
from toolkit.transfer.encoders import load_encoder
from toolkit.transfer.word_vectors import WORD_SETS, analogies, score_words, similarity, whole_words, word_vectors


@pytest.fixture(scope="module")
def word2vec(corpus, tmp_path_factory):
    """A folder with vectors of every word of the corpus, and gensim's model with the same settings."""
    root = tmp_path_factory.mktemp("word2vec")
    flags = ["--corpus", str(corpus), "--validation_corpus", str(corpus), "--output_dir", str(root / "encoder")]
    flags += ["--preset", "word2vec-tiny", "--workers", "1", "--num_train_epochs", "2", "--min_count", "1"]
    assert main(["pretrain", "word2vec", *flags]) == 0
    split = pre_tokenizers.BertPreTokenizer()
    lines = [line for line in corpus.read_text(encoding="utf-8").splitlines() if line.strip()]
    sentences = "\n".join(" ".join(word for word, _ in split.pre_tokenize_str(line)) for line in lines)
    (root / "sentences.txt").write_text(sentences, encoding="utf-8")
    settings = {"vector_size": 64, "window": 5, "negative": 5, "min_count": 1, "sg": 1, "epochs": 2, "seed": 0}
    return str(root / "encoder"), Word2Vec(corpus_file=str(root / "sentences.txt"), workers=1, **settings).wv


@pytest.mark.parametrize("name", ["wordsim353", "simlex999"])
def test_similarity_of_word2vec_equals_gensims(word2vec, name, tmp_path):
    folder, by_hand = word2vec
    record = score_words(folder, name, tmp_path / "score.json")
    _, spearman, unknown_percent = by_hand.evaluate_word_pairs(datapath(WORD_SETS[name]))
    metrics = record["metrics"]
    assert record["task"] == "similarity"
    assert record["n"] == int(name[-3:])
    assert metrics["spearman"]["value"] == spearman[0]
    assert metrics["spearman"]["low"] < spearman[0] < metrics["spearman"]["high"]
    assert metrics["coverage"]["value"] == pytest.approx(1 - unknown_percent / 100)
    assert 0 < metrics["coverage"]["value"] < 1


def test_analogies_of_word2vec_equal_gensims(word2vec, tmp_path):
    folder, by_hand = word2vec
    record = score_words(folder, "analogies", tmp_path / "score.json")
    accuracy, sections = by_hand.evaluate_word_analogies(datapath(WORD_SETS["analogies"]))
    num_answers = len(sections[-1]["correct"]) + len(sections[-1]["incorrect"])
    assert record["n"] == 19_544
    assert record["metrics"]["accuracy"]["value"] == accuracy > 0
    assert record["metrics"]["coverage"]["value"] == pytest.approx(num_answers / 19_544)


def test_analogies_count_correct_and_known_questions(tmp_path):
    """`walked` is a wrong answer, since the plural of `walk` is `walks`; `unheard` has no vector."""
    table = {"man": [1], "woman": [1, 1], "king": [1, 0, 1], "Queen": [1, 1, 1]}
    table |= {"cat": [0, 0, 0, 1], "cats": [0, 0, 0, 1, 1], "dog": [0, 0, 0, 0, 0, 1], "dogs": [0, 0, 0, 0, 1, 1]}
    table |= {"walk": [0, 0, 0, 0, 0, 0, 1], "walks": [0, 0, 0, 0, 1, 0, 1], "walked": [0, 0, 0, 0, -1, 0, 1]}
    vectors = KeyedVectors(7)
    vectors.add_vectors(list(table), np.array([row + [0] * (7 - len(row)) for row in table.values()], np.float32))
    questions = [": family", "man woman king queen", "man woman king unheard"]
    questions += [": gram8-plural", "cat cats dog dogs", "cat cats walk walked"]
    (tmp_path / "set.txt").write_text("\n".join(questions))
    metrics = analogies(vectors, str(tmp_path / "set.txt"))
    values = {name: figure["value"] for name, figure in metrics.items()}
    expected = {"accuracy": 2 / 3, "semantic_accuracy": 1.0, "syntactic_accuracy": 0.5, "coverage": 0.75}
    assert values == pytest.approx(expected)


def test_similarity_is_one_for_vectors_in_the_order_of_the_scores(tmp_path):
    vectors = KeyedVectors(2)
    angles = np.linspace(0, 1, 13)
    vectors.add_vectors(list("abcdefghijklm"), np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    pairs = [f"a\t{letter.upper()}\t{score}" for score, letter in enumerate("mlkjihgfedcb")]
    (tmp_path / "set.tsv").write_text("\n".join(["# pairs", *pairs, "a\tunheard\t7"]))
    metrics = similarity(vectors, str(tmp_path / "set.tsv"))
    assert metrics["spearman"] == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    assert metrics["coverage"]["value"] == pytest.approx(12 / 13)
    (tmp_path / "set.tsv").write_text("a\tb\t9\na\tunheard\t7\n")
    with pytest.raises(InputError, match="the encoder knows 1 of 2 pairs"):
        similarity(vectors, str(tmp_path / "set.tsv"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, -1])
def test_the_vector_of_a_word_is_the_mean_of_its_pieces_alone(encoders, family, layer):
    model, tokenizer = load_encoder(str(encoders[family]), "AutoModel", MODALITIES["text"])
    model.eval()
    words = ["the", "government", "zorblifier"]
    vectors = word_vectors(model, tokenizer, words, layer)
    assert vectors.index_to_key == (words[:2] if family == "word2vec" else words)
    for word in vectors.index_to_key:
        with torch.no_grad():
            states = model(**tokenizer(word, return_tensors="pt"), output_hidden_states=True).hidden_states[layer][0]
        assert np.allclose(vectors[word], states[1:-1].mean(dim=0), atol=1e-5)
    with pytest.raises(InputError, match="--layer 9: the encoder has the layers 0 to"):
        word_vectors(model, tokenizer, words, 9)


def test_whole_words_are_those_of_the_vocabulary(encoders, taggers, word2vec):
    folders = {"elmo": str(encoders["elmo"]), "bert": str(encoders["bert"]), "word2vec": word2vec[0]}
    found = {family: whole_words(folder, AutoTokenizer.from_pretrained(folder)) for family, folder in folders.items()}
    assert found["word2vec"] == word2vec[1].index_to_key
    output_words = AutoTokenizer.from_pretrained(encoders["elmo"] / "output_words").get_vocab()
    assert found["elmo"] == sorted(output_words, key=output_words.get)[5:]
    pieces = AutoTokenizer.from_pretrained(encoders["bert"]).get_vocab()
    assert found["bert"] == [p for p in sorted(pieces, key=pieces.get) if not p.startswith("##")][5:]
    assert whole_words(str(taggers["elmo"]), AutoTokenizer.from_pretrained(taggers["elmo"])) == []


@pytest.mark.parametrize("family", ["fasttext", "elmo", "bert"])
def test_an_encoder_of_characters_covers_every_pair(encoders, family, tmp_path):
    done = run_here("score", encoders[family], "--data", "wordsim353", "--output_file", tmp_path / "score.json")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "score.json").read_text())
    assert record["metrics"]["coverage"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert record["layer"] == -1
    assert "similarity on wordsim353 (all, 353 examples)" in done.stdout
    assert f"{record['metrics']['spearman']['value']:.4f}" in done.stdout


FAULTS = {
    "unknown set": (["{bert}", "--data", "wordsim354"], "--data wordsim354: no such file or folder, nor sample, word"),
    "no words to answer with": (["{tagger}", "--data", "analogies"], "no output_words in this folder"),
    "no such layer": (
        ["{bert}", "--data", "simlex999", "--layer", "7"],
        "--layer 7: the encoder has the layers 0 to 2",
    ),
    "flag of text": (["{bert}", "--data", "simlex999", "--max_examples", "5"], "--max_examples 5: does not go with"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_ends_with_one_clear_line(fault, encoders, taggers, tmp_path):
    names = {**encoders, "tagger": taggers["elmo"]}
    words, message = FAULTS[fault]
    flags = ["--output_file", tmp_path / "score.json"]
    assert message in error_of(run_here("score", *(word.format(**names) for word in words), *flags))
    assert not (tmp_path / "score.json").exists()
