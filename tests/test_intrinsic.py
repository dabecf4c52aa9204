"""Perplexity and word vectors: against calculations by hand, gensim's own figures, and what pretraining measured."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import FAMILIES, run_toolkit
from gensim.models import KeyedVectors, Word2Vec
from gensim.test.utils import datapath
from tokenizers import pre_tokenizers
from toolkit.transfer.intrinsic import (
    WORD_SETS,
    analogies,
    score_text,
    score_words,
    similarity,
    whole_words,
    word_vectors,
)
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, AutoTokenizer

from toolkit.cli.dispatch import main
from toolkit.corpora.text import load_text
from toolkit.data.rows import hold_out, spread
from toolkit.errors import InputError
from toolkit.transfer.encoders import load_encoder

LINES = [
    "The cat sat on the mat.",
    "",
    "In 1990 the government of Greece met in Athens.",
    "Zorblifiers frobnicated ☃.",
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def held_out(corpus, tmp_path_factory):
    """The lines that pretraining held out, as a file."""
    path = tmp_path_factory.mktemp("held_out") / "lines.txt"
    path.write_text("\n".join(hold_out(load_text(str(corpus)), 0.01)[1]["text"]), encoding="utf-8")
    return str(path)


def test_perplexity_is_what_pretraining_measured_on_the_same_text(encoders, held_out, tmp_path):
    record = score_text(str(encoders["elmo"]), held_out, tmp_path / "score.json")
    before = json.loads((encoders["elmo"] / "results.json").read_text())
    assert record["metrics"]["loss"]["value"] == pytest.approx(before["metrics"]["loss"]["value"], rel=1e-6)
    assert record == json.loads((tmp_path / "score.json").read_text())
    assert (record["task"], record["split"], record["num_steps"]) == ("perplexity", "all", 0)
    assert set(record) >= set(
        "task dataset split n metrics seed encoder seconds num_steps peak_memory_mb parameters throughput "
        "throughput_unit deterministic versions command".split()
    )


def test_perplexity_equals_a_calculation_by_hand(encoders, text, tmp_path):
    """Two windows of 32 words at most, `[CLS]` first; the words and their ends are those of the text."""
    folder = encoders["elmo"]
    model, tokenizer = AutoModelForPreTraining.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder / "output_words").get_vocab()
    split = pre_tokenizers.BertPreTokenizer()
    read = [w for line in LINES if line for w in [*(w for w, _ in split.pre_tokenize_str(line)), "[SEP]"]]
    forward, backward = [], []
    for window in (read[:31], read[31:]):
        spelled = tokenizer(" ".join(window), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            output = model(torch.tensor([[tokenizer.cls_token_id, *spelled]]))
        ids = [words.get(word, words["[UNK]"]) for word in window]
        forward += [-output.forward_logits[0].log_softmax(-1)[i, word].item() for i, word in enumerate(ids)]
        backward += [-output.backward_logits[0].log_softmax(-1)[i + 1, word].item() for i, word in enumerate(ids[:-1])]
    metrics = score_text(str(folder), text, tmp_path / "score.json")["metrics"]
    by_hand = {
        "perplexity": math.exp(np.mean(forward + backward)),
        "forward_perplexity": math.exp(np.mean(forward)),
        "backward_perplexity": math.exp(np.mean(backward)),
        "loss": np.mean(forward + backward),
        "unknown_words": np.mean([word not in words for word in read if word != "[SEP]"]),
    }
    assert {name: figure["value"] for name, figure in metrics.items()} == pytest.approx(by_hand, rel=1e-5)
    assert metrics["unknown_words"]["value"] > 0
    for edge in ("low", "high"):
        assert metrics["perplexity"][edge] == pytest.approx(math.exp(metrics["loss"][edge]))


def test_pseudo_perplexity_equals_one_token_at_a_time(encoders, text, tmp_path):
    folder = encoders["bert"]
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    losses = []
    for line in LINES:
        ids = tokenizer(line)["input_ids"]
        for i, token in enumerate(ids):
            if token not in tokenizer.all_special_ids:
                masked = torch.tensor([[*ids[:i], tokenizer.mask_token_id, *ids[i + 1 :]]])
                with torch.no_grad():
                    losses.append(-model(masked).logits[0, i].log_softmax(-1)[token].item())
    record = score_text(str(folder), text, tmp_path / "score.json")
    assert record["task"] == "pseudo-perplexity"
    assert record["n"] == 3
    assert record["metrics"]["loss"]["value"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert record["metrics"]["pseudo_perplexity"]["value"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert 0 < record["metrics"]["unknown_tokens"]["value"] < 0.2


def test_long_lines_are_cut_at_the_length_of_the_model(encoders, tmp_path):
    folder = shutil.copytree(encoders["bert"], tmp_path / "bert")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 12}))
    losses = []
    for length in (10, 11, 30):
        (tmp_path / "long.txt").write_text("the " * length)
        record = score_text(str(folder), str(tmp_path / "long.txt"), tmp_path / "score.json")
        losses.append(record["metrics"]["loss"]["value"])
    assert losses[0] == losses[1] == losses[2]
    (tmp_path / "long.txt").write_text("the " * 9)
    shorter = score_text(str(folder), str(tmp_path / "long.txt"), tmp_path / "score.json")
    assert shorter["metrics"]["loss"]["value"] != losses[0]


@pytest.mark.parametrize("family", ["elmo", "bert"])
def test_max_examples_spreads_over_the_text(encoders, corpus, family, tmp_path):
    record = score_text(str(encoders[family]), str(corpus), tmp_path / "score.json", max_examples=3)
    assert record["n"] == 3
    assert spread(load_text(str(corpus)), 4)["text"][:] == load_text(str(corpus))["text"][::100]


@pytest.fixture(scope="module")
def word2vec(corpus, tmp_path_factory):
    """A folder with vectors of every word of the corpus, and what gensim gives by hand with the same settings."""
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


def test_analogies_count_what_is_right_and_what_is_known(tmp_path):
    """The plural of `walk` is `walks`, so that `walked` is a wrong answer, and nothing is known of `unheard`."""
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


def test_similarity_of_vectors_in_the_order_of_the_scores_is_one(tmp_path):
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
    model, tokenizer = load_encoder(str(encoders[family]), "AutoModel")
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
def test_an_encoder_that_spells_knows_every_pair(encoders, family, tmp_path):
    done = run_toolkit("score", encoders[family], "--data", "wordsim353", "--output_file", tmp_path / "score.json")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "score.json").read_text())
    assert record["metrics"]["coverage"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert record["layer"] == -1
    assert "similarity on wordsim353 (all, 353 examples)" in done.stdout
    assert f"{record['metrics']['spearman']['value']:.4f}" in done.stdout


FAULTS = {
    "no language model": (["{word2vec}", "--data", "text:{text}"], "Word2VecModel, which is no language model"),
    "fine-tuned": (["{tagger}", "--data", "text:{text}"], "ElmoForTokenClassification, which is no language model"),
    "missing text": (["{elmo}", "--data", "text:{text}.nope"], "no such file"),
    "unknown set": (["{bert}", "--data", "wordsim354"], "--data wordsim354: no such file or folder, nor sample, word"),
}
MORE_FAULTS = {
    "sample without a test split": (["{elmo}", "--data", "text:sample", "--split", "test"], "no split 'test'"),
    "no output words": (["{copy}", "--data", "text:{text}"], "no output_words in this folder"),
    "no words to answer with": (["{tagger}", "--data", "analogies"], "no output_words in this folder"),
    "no such layer": (
        ["{bert}", "--data", "simlex999", "--layer", "7"],
        "--layer 7: the encoder has the layers 0 to 2",
    ),
    "no examples": (["{bert}", "--data", "text:{text}", "--max_examples", "0"], "--max_examples 0"),
    "flag of text": (["{bert}", "--data", "simlex999", "--max_examples", "5"], "--max_examples 5: does not go with"),
}


@pytest.fixture
def names(encoders, taggers, text, tmp_path):
    copy = shutil.copytree(encoders["elmo"], tmp_path / "copy", ignore=shutil.ignore_patterns("output_words"))
    return {**encoders, "tagger": taggers["elmo"], "text": text, "copy": copy}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_ends_with_one_clear_line(fault, names, tmp_path):
    words, message = FAULTS[fault]
    done = run_toolkit("score", *(word.format(**names) for word in words), "--output_file", tmp_path / "score.json")
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("toolkit: error: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "score.json").exists()


@pytest.mark.parametrize("fault", MORE_FAULTS)
def test_more_bad_input_ends_with_one_clear_line(fault, names, tmp_path, capsys):
    words, message = MORE_FAULTS[fault]
    flags = ["--output_file", str(tmp_path / "score.json")]
    assert main(["score", *(word.format(**names) for word in words), *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("toolkit: error: ")
    assert message in last
    assert not (tmp_path / "score.json").exists()
