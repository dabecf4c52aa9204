"""Perplexity compared with calculations by hand and with the held-out loss of pretraining."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from in_process import error_of, run_here
from tokenizers import pre_tokenizers
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, AutoTokenizer

from toolkit.corpora.text import load_text
from toolkit.data.rows import hold_out, spread
from toolkit.pretraining.perplexity import score_text

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


def test_perplexity_equals_the_held_out_loss_of_pretraining(encoders, held_out, tmp_path):
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
    """Two windows of at most 32 words that start with `[CLS]`. Words and sentence ends are those of the text."""
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


FAULTS = {
    "no language model": (["{word2vec}"], "Word2VecModel, which is no language model"),
    "fine-tuned": (["{tagger}"], "ElmoForTokenClassification, which is no language model"),
    "missing text": (["{elmo}", "--data", "text:{text}.nope"], "no such file"),
    "sample without a test split": (["{elmo}", "--data", "text:sample", "--split", "test"], "no split 'test'"),
    "no output words": (["{copy}"], "no output_words in this folder"),
    "no examples": (["{bert}", "--max_examples", "0"], "--max_examples 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_ends_with_one_clear_line(fault, encoders, taggers, text, tmp_path):
    copy = shutil.copytree(encoders["elmo"], tmp_path / "copy", ignore=shutil.ignore_patterns("output_words"))
    names = {**encoders, "tagger": taggers["elmo"], "text": text, "copy": copy}
    words, message = FAULTS[fault]
    if "--data" not in words:
        words = [*words, "--data", "text:{text}"]
    flags = ["--output_file", tmp_path / "score.json"]
    assert message in error_of(run_here("score", *(word.format(**names) for word in words), *flags))
    assert not (tmp_path / "score.json").exists()
