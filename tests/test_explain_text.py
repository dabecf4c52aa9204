"""Explanations of texts: each compared with a calculation by hand, and tested by what it claims."""

import random
import re

import numpy as np
import pytest
import torch
from conftest import run_toolkit
from loopback import run_in_process
from PIL import Image
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

import toolkit.models
from tasks import predict
from toolkit.corpora.tokenization import load_tokenizer
from toolkit.explain.attention import attention_weights
from toolkit.explain.words import embedding_layer, hidden_states, integrated_gradients, occlusion

FILLERS = "the old man sat by a small river and a dog ran over some green hills".split()
SIGNALS = {"good": ["fine", "superb", "lovely"], "bad": ["awful", "dull", "poor"]}


def run(*words) -> str:
    done = run_in_process(*map(str, words))
    assert done.returncode == 0, done.stderr
    return done.stdout


def review(rng: random.Random) -> tuple[list[str], str, int]:
    """Words without meaning for the label but one, the label, and the place of that word."""
    words = rng.choices(FILLERS, k=rng.randint(8, 14))
    label, place = rng.choice(list(SIGNALS)), rng.randrange(len(words))
    words[place] = rng.choice(SIGNALS[label])
    return words, label, place


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """Two classifiers, a recurrent network and a BERT, that have learned from examples which words count."""
    toolkit.models.register()
    root, rng = tmp_path_factory.mktemp("reviews"), random.Random(0)
    lines = [f"{' '.join(words)}\t{label}\n" for words, label, _ in (review(rng) for _ in range(300))]
    (root / "reviews.tsv").write_text("text\tlabel\n" + "".join(lines))
    flags = ["--data", root / "reviews.tsv", "--max_steps", 150, "--learning_rate", "1e-3"]
    flags += ["--word_dropout", 0.3]  # so that a text of unknown words is no surprise
    for preset in ("gru-tiny", "bert-tiny"):
        run("finetune", "text", "--encoder", f"scratch:{preset}", *flags, "--output_dir", root / preset)
    return root


def load(folder, auto_class=AutoModelForSequenceClassification):
    return auto_class.from_pretrained(folder).eval(), load_tokenizer(folder)


@pytest.mark.parametrize("preset", ["gru-tiny", "bert-tiny"])
def test_words_that_count_are_found_and_occluding_them_lowers_the_logit_more_than_random_words(preset, reviews):
    model, tokenizer = load(reviews / preset)
    rng, found, fall_of_top, fall_of_random, missed = random.Random(1), {}, {}, [], []
    for _ in range(25):
        words, label, place = review(rng)
        encoding = tokenizer(" ".join(words))
        ids, of_token = torch.tensor(encoding["input_ids"]), [-1 if w is None else w for w in encoding.word_ids()]
        label_id = model.config.label2id[label]

        def forward(ids: torch.Tensor, mask=None, first=None, label_id=label_id) -> torch.Tensor:
            mask = torch.ones_like(ids) if mask is None else mask
            return model(input_ids=ids, attention_mask=mask).logits[:, [label_id]]

        def fall(word: int, ids=ids, of_token=of_token, forward=forward) -> float:
            hidden = torch.where(torch.tensor(of_token) == word, tokenizer.unk_token_id, ids)
            with torch.no_grad():
                return float(forward(ids[None]) - forward(hidden[None]))

        arguments = (ids, of_token, tokenizer.unk_token_id)
        by_method = {
            "occlusion": occlusion(forward, *arguments)[0],
            "gradients": integrated_gradients(forward, embedding_layer(model, ids), *arguments)[0],
        }
        assert by_method["occlusion"].tolist() == pytest.approx([fall(word) for word in range(len(words))], abs=1e-4)
        baseline = torch.where(torch.tensor(of_token) < 0, ids, tokenizer.unk_token_id)
        with torch.no_grad():
            difference = float(forward(ids[None]) - forward(baseline[None]))
        missed.append(abs(by_method["gradients"].sum() - difference) > 0.06 * max(1, abs(difference)))
        for method, values in by_method.items():
            top = int(np.argmax(values))  # one word of at most fourteen is the top decile
            found.setdefault(method, []).append(top == place)
            fall_of_top.setdefault(method, []).append(fall(top))
        fall_of_random.append(fall(rng.randrange(len(words))))
    assert np.mean(missed) <= 0.2, "the values of all words sum to the difference of the logits"
    for method in found:
        assert np.mean(found[method]) >= 0.8, method
        assert np.mean(fall_of_top[method]) > np.mean(fall_of_random) + 2 * np.std(fall_of_random) / 5, method


@pytest.mark.parametrize(("preset", "picture"), [("gru-tiny", "hidden_states"), ("bert-tiny", "attention")])
def test_a_text_classifier_is_explained_as_pictures_and_a_page(preset, picture, reviews, tmp_path):
    done = run_in_process(
        "explain", str(reviews / preset), "the dog was superb", "--output_dir", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\t")[0] == predict(str(reviews / preset), ["the dog was superb"])[0]["predicted"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"words.png", f"{picture}.png", "explanation.html"}
    for file in (tmp_path / "out").glob("*.png"):
        with Image.open(file) as image:
            assert np.asarray(image.convert("L")).std() > 5, "something is drawn"
    page = (tmp_path / "out" / "explanation.html").read_text()
    assert page.count(">superb<small>") == 2  # once for each method
    assert page.count("data:image/png;base64,") == 2


@pytest.mark.parametrize("family", ["elmo", "bert", "word2vec"])
def test_a_tagger_is_explained_word_by_word(family, taggers, tmp_path):
    shown = run("explain", taggers[family], "The old dog barks.", "--output_dir", tmp_path)
    assert [line.split("\t")[0] for line in shown.strip().splitlines()] == ["The", "old", "dog", "barks", "."]
    names = {"elmo": {"hidden_states"}, "bert": {"attention", "words_integrated_gradients"}}
    names = names.get(family, {"words_integrated_gradients"}) | {"words_occlusion"}
    assert {file.stem for file in tmp_path.glob("*.png")} == names


def test_a_word_of_many_bytes_is_replaced_by_one_unknown_word(taggers):
    """The tokens of an ELMo are bytes; word dropout replaces a word by one unknown token too."""
    model, tokenizer = load(taggers["elmo"], AutoModelForTokenClassification)
    sentence = ["The", "old", "dog", "barks"]
    encoding = tokenizer(sentence, is_split_into_words=True)
    ids, of_token = torch.tensor(encoding["input_ids"]), [-1 if w is None else w for w in encoding.word_ids()]
    unknown = tokenizer.unk_token_id

    def forward(ids: torch.Tensor, mask: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids, attention_mask=mask).logits
        return logits[torch.arange(len(ids)).unsqueeze(1), first, 0]

    falls = occlusion(forward, ids, of_token, unknown)
    assert falls.shape == (4, 4)
    starts = [of_token.index(word) for word in range(4)]
    without_old = [*ids[: starts[1]].tolist(), unknown, *ids[starts[2] :].tolist()]
    shift = len(ids) - len(without_old)
    assert shift == 2
    with torch.no_grad():
        before = model(ids[None]).logits[0, :, 0]
        after = model(torch.tensor([without_old])).logits[0, :, 0]
    expected = before[starts[3]] - after[starts[3] - shift]
    assert falls[3, 1] == pytest.approx(float(expected), abs=1e-5)
    assert abs(falls[3, 1]) > 1e-4


def test_words_such_as_a_dollar_and_texts_of_many_words_are_drawn(reviews, taggers, tmp_path):
    run("explain", taggers["word2vec"], "$ $ $$ costs_ ^ \\frac", "--output_dir", tmp_path / "signs")
    assert (tmp_path / "signs" / "words_occlusion.png").is_file()
    run("explain", reviews / "bert-tiny", "superb dogs " * 100, "--output_dir", tmp_path / "long")
    page = (tmp_path / "long" / "explanation.html").read_text()
    assert "The first 80 of 200 words are shown." in page
    assert re.search(r"The first 40 of \d+ tokens are shown\.", page)
    for file in (tmp_path / "long").glob("*.png"):
        with Image.open(file) as image:
            assert max(image.size) <= 6000


def test_a_frozen_encoder_is_explained_like_one_that_was_trained(encoders, tmp_path):
    flags = ["--encoder", encoders["bert"], "--data", "sample", "--train_size", 20, "--max_steps", 2, "--freeze"]
    run("finetune", "pos", *flags, "--output_dir", tmp_path / "tagger")
    run("explain", tmp_path / "tagger", "The old dog barks.", "--output_dir", tmp_path / "out")
    assert (tmp_path / "out" / "attention.png").is_file()
    assert "[MASK]" in (tmp_path / "out" / "explanation.html").read_text()


def test_hidden_states_are_those_of_the_network(taggers, reviews):
    model, tokenizer = load(reviews / "gru-tiny")
    ids = torch.tensor(tokenizer("the dog ran")["input_ids"])
    states = hidden_states(model, ids)
    assert states.shape == (2, len(ids), 128)
    with torch.no_grad():
        gru = model.rnn.forward_layers[0](model.rnn.embeddings(ids[None]))[0][0]
    np.testing.assert_allclose(states[0], gru.numpy(), atol=1e-6)
    tagger, _ = load(taggers["bert"], AutoModelForTokenClassification)
    assert hidden_states(tagger, ids) is None
    weights = attention_weights(tagger, input_ids=ids[None], attention_mask=torch.ones_like(ids[None]))
    assert len(weights) == tagger.config.num_hidden_layers
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(weights[0].shape[:2]))


def test_the_attention_of_a_decoder_is_drawn_and_its_lack_is_said(tmp_path):
    for attention in ("additive", "none"):
        flags = ["--encoder", "scratch:gru-tiny", "--data", "sample", "--attention", attention, "--max_steps", 2]
        flags += ["--train_size", 20, "--target_units", "words", "--max_new_tokens", 5]
        run("finetune", "seq2seq", *flags, "--output_dir", tmp_path / attention)
    shown = run("explain", tmp_path / "additive", "<ordinal>21", "--output_dir", tmp_path / "out")
    assert shown.strip().endswith("<ordinal>21")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"attention.png", "explanation.html"}
    done = run_toolkit("explain", tmp_path / "none", "<ordinal>21", "--output_dir", tmp_path / "nothing")
    assert done.returncode == 2
    assert "no attention" in done.stderr
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("the dog", ["--label", "superb"], "--label superb: not a label"),
        ("  ", [], "there is no text"),
        ("missing/file.txt", [], "no such file"),
        ("\u200b", [], "there is no word in it"),
        ("the dog", ["--layers", "rnn"], "--layers rnn: goes with images"),
    ],
)
def test_bad_input_gets_one_line(text, flags, message, reviews, tmp_path):
    done = run_toolkit("explain", reviews / "gru-tiny", text, "--output_dir", tmp_path / "out", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
