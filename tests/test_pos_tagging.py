"""The tagger, from data to predictions, on each family of encoders."""

import gzip
import json

import pytest
import torch
from conftest import FAMILIES, run_toolkit
from in_process import run_here
from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer, pipeline

from tasks import TASKS, finetune, predict
from tasks.inference import Predictor
from tasks.pos_tagging import MAX_TOKENS, PosTagging, _tokenize
from tasks.text_task import first_tokens
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.data.treebank import load_treebank
from toolkit.errors import InputError
from toolkit.models.families import presets

families = pytest.mark.parametrize("family", FAMILIES)
UNSEEN = "The zorblifiers quizzically frobnicated Ålesund's 12.5 wugs!"


@families
def test_the_record_is_complete_and_agrees_with_the_predictions(taggers, family):
    record = json.loads((taggers[family] / "results.json").read_text())
    assert set(record) >= set(
        "task dataset split n metrics seed encoder seconds num_steps peak_memory_mb parameters throughput "
        "deterministic versions command train_size".split()
    )
    assert (record["task"], record["split"], record["train_size"], record["num_steps"]) == ("pos", "test", 60, 60)
    lines = [json.loads(line) for line in (taggers[family] / "predictions.jsonl").read_text().splitlines()]
    test_rows = load_treebank("sample", "test")
    assert [line["tokens"] for line in lines] == test_rows["tokens"][:]
    assert [line["tags"] for line in lines] == test_rows["tags"][:]
    right = [p == t for line in lines for p, t in zip(line["predicted"], line["tags"], strict=True)]
    accuracy = record["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx(sum(right) / len(right))
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    seen = set((taggers[family] / "seen_in_training.txt").read_text().splitlines())
    unseen = [
        p == t
        for line in lines
        for word, p, t in zip(line["tokens"], line["predicted"], line["tags"], strict=True)
        if word not in seen
    ]
    assert 0 < len(unseen) < len(right)
    assert record["metrics"]["accuracy_unseen_words"]["value"] == pytest.approx(sum(unseen) / len(unseen))
    majority = max(sum(t == tag for line in lines for t in line["tags"]) for tag in ("NOUN", "VERB")) / len(right)
    assert accuracy["value"] > majority


@families
def test_scoring_the_folder_gives_the_same_figures_in_a_fresh_process(taggers, family, tmp_path):
    done = run_toolkit("score", taggers[family], "--data", "sample", "--output_file", tmp_path / "score.json")
    assert done.returncode == 0, done.stderr
    before = json.loads((taggers[family] / "results.json").read_text())["metrics"]
    after = json.loads((tmp_path / "score.json").read_text())["metrics"]
    assert after == before
    assert f"{after['accuracy']['value']:.4f}" in done.stdout


@families
def test_predict_gives_one_tag_per_word(taggers, family):
    done = run_here("predict", taggers[family], UNSEEN)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.strip().split("\n")]
    words = ["The", "zorblifiers", "quizzically", "frobnicated", "Ålesund", "'s", "12.5", "wugs", "!"]
    assert [row[0] for row in rows] == words
    assert all(0 < float(probability) <= 1 for _, _, probability in rows)
    from_stdin = run_here("predict", taggers[family], stdin=f"{UNSEEN}\n\nStop.\n")
    assert from_stdin.stdout.startswith(done.stdout.strip())
    assert from_stdin.stdout.count("\n\n") == 2


def test_predict_reads_files_and_writes_jsonl(taggers, tmp_path):
    treebank, text = tmp_path / "a.conllu", tmp_path / "a.txt"
    treebank.write_text("1\tNew York\t_\tPROPN\t_\t_\t_\t_\t_\t_\n2\tsleeps\t_\tVERB\t_\t_\t_\t_\t_\t_\n\n")
    text.write_text("It rains. We stay.")
    done = run_here("predict", taggers["elmo"], treebank, text, "--output_format", "jsonl")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["tokens"] for line in lines] == [["New York", "sleeps"], ["It", "rains", "."], ["We", "stay", "."]]
    assert all(len(line["predicted"]) == len(line["tokens"]) == len(line["probabilities"]) for line in lines)


def test_predict_takes_long_texts_compressed_files_and_treebanks_without_tags(taggers, tmp_path, monkeypatch):
    long = " ".join(["boats"] * 60)
    (tmp_path / "a.conllu").write_text("1\tBoats\t_\t_\t_\t_\t_\t_\t_\t_\n\n")
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("We sail.")
    monkeypatch.chdir(tmp_path)
    found = predict(str(taggers["word2vec"]), [long, "a.conllu", "a.txt.gz"])
    assert [row["tokens"] for row in found] == [["boats"] * 60, ["Boats"], ["We", "sail", "."]]
    done = run_here("predict", taggers["word2vec"], stdin="a.conllu\n")
    assert done.stdout.startswith("a.conllu\t"), "standard input holds texts, not names of files"


@families
def test_the_pipeline_of_transformers_gives_right_offsets_on_unseen_words(taggers, family):
    tagger = pipeline("token-classification", model=str(taggers[family]), aggregation_strategy="none")
    rows = tagger(UNSEEN)
    assert rows
    for row in rows:
        piece = UNSEEN[row["start"] : row["end"]]
        assert piece
        assert not piece.isspace()
    starts = {row["start"] for row in rows}
    whole = ("The", "!") if family == "word2vec" else ("The", "zorblifiers", "frobnicated", "wugs", "!")
    assert starts >= {UNSEEN.index(word) for word in whole}
    # The row whose offset starts a word has the tag that `predict` gives the word.
    (row,) = TASKS["pos"].read_inputs([UNSEEN])
    predictor = Predictor(TASKS["pos"], str(taggers[family]))
    (prediction,) = predictor(TASKS["pos"].read_inputs([UNSEEN]))
    of_start = {row["start"]: row["entity"] for row in rows}
    predicted = dict(zip(row["tokens"], prediction.tags, strict=True))
    assert {word: of_start[UNSEEN.index(word)] for word in whole} == {word: predicted[word] for word in whole}


@families
def test_the_pretrained_folder_loads_as_a_plain_encoder(encoders, family):
    model, tokenizer = AutoModel.from_pretrained(encoders[family]), AutoTokenizer.from_pretrained(encoders[family])
    inputs = tokenizer([UNSEEN, "Short."], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    assert states.shape[:2] == inputs["input_ids"].shape
    assert torch.isfinite(states).all()


def test_the_tagger_uses_the_recurrent_layers_of_elmo(taggers, tmp_path):
    """Without its LSTMs the tagger is worse, so it does not rely on characters alone."""
    model = AutoModelForTokenClassification.from_pretrained(taggers["elmo"])
    for layers in (model.elmo.forward_layers, model.elmo.backward_layers):
        for parameter in layers.parameters():
            parameter.data.zero_()
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(taggers["elmo"]).save_pretrained(tmp_path)
    rows = load_treebank("sample", "test")
    task = TASKS["pos"]
    scores = [
        task.figures(rows, Predictor(task, str(folder))(rows))["accuracy"].value
        for folder in (taggers["elmo"], tmp_path)
    ]
    assert scores[0] > scores[1] + 0.05


@families
def test_a_frozen_encoder_is_not_changed(encoders, family, tmp_path):
    flags = {"encoder": str(encoders[family]), "data": "sample", "output_dir": str(tmp_path), "train_size": 20}
    finetune("pos", **flags, max_steps=4, freeze=True)
    before = AutoModel.from_pretrained(encoders[family]).state_dict()
    after = AutoModelForTokenClassification.from_pretrained(tmp_path).base_model.state_dict()
    assert after
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@families
def test_scratch_is_the_same_network_with_random_weights(encoders, family, tmp_path):
    records = []
    for name, encoder in (("pretrained", encoders[family]), ("scratch", f"scratch:{encoders[family]}")):
        flags = {"encoder": str(encoder), "data": "sample", "output_dir": str(tmp_path / name), "train_size": 20}
        records.append(finetune("pos", **flags, max_steps=1, learning_rate=1e-9))
    assert records[0]["parameters"] == records[1]["parameters"]
    pretrained, scratch = (
        AutoModelForTokenClassification.from_pretrained(tmp_path / name).base_model.state_dict()
        for name in ("pretrained", "scratch")
    )
    original = AutoModel.from_pretrained(encoders[family]).state_dict()
    matrices = [name for name, value in pretrained.items() if value.ndim == 2]
    assert all(torch.allclose(pretrained[name], original[name], atol=1e-6) for name in matrices)
    assert not any(torch.allclose(scratch[name], original[name], atol=1e-3) for name in matrices)


@pytest.mark.parametrize("preset", ["word2vec-tiny", "fasttext-tiny", "elmo-tiny", "bert-tiny"])
def test_scratch_preset_needs_nothing_but_the_data(preset, tmp_path):
    flags = {"encoder": f"scratch:{preset}", "data": "sample", "output_dir": str(tmp_path), "train_size": 20}
    record = finetune("pos", **flags, max_steps=2)
    model, tokenizer = (auto.from_pretrained(tmp_path) for auto in (AutoModelForTokenClassification, AutoTokenizer))
    expected = presets("text")[preset].config(len(tokenizer))
    assert (model.config.model_type, model.config.hidden_size) == (expected.model_type, expected.hidden_size)
    assert set(tokenizer("The wugs !")["input_ids"]) < set(range(expected.vocab_size))
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    right = [p == t for line in lines for p, t in zip(line["predicted"], line["tags"], strict=True)]
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(sum(right) / len(right))


def test_data_without_splits_is_split_with_a_message(encoders, tmp_path):
    from importlib.resources import files

    treebank = files("toolkit.data") / "samples" / "treebank" / "train.conllu"
    flags = ["--encoder", encoders["word2vec"], "--data", treebank, "--output_dir", tmp_path / "a", "--max_steps", "2"]
    done = run_here("finetune", "pos", *flags)
    assert done.returncode == 0, done.stderr
    assert "no test split" in done.stderr
    record = json.loads((tmp_path / "a" / "results.json").read_text())
    assert record["split"] == "validation"
    assert record["train_size"] + record["n"] == len(load_treebank("sample", "train"))


def test_long_sentences_are_tagged_in_parts_and_no_word_is_lost():
    tokenizer = train_tokenizer((), "bytes")
    tokens = [f"word{i}" for i in range(50)]
    parts = list(_tokenize(tokens, tokenizer, max_length=40))
    assert sum(len(first_tokens(words)) for _, words in parts) == 50
    assert all(len(ids) <= 40 for ids, _ in parts)
    ids, words = next(iter(_tokenize(["x" * 100], tokenizer, max_length=40)))
    assert (len(ids), first_tokens(words)) == (40, [1])


def test_parts_are_bounded_for_encoders_without_a_limit():
    """Otherwise one long sentence pads its whole batch, of which recurrent layers keep every state."""
    tokens = [*(f"word{i}" for i in range(3000)), "x" * 8000]
    rows = [{"tokens": tokens, "tags": ["A", "B", "A"] * 1000 + ["B"]}]
    parts = PosTagging().encode_words(rows, train_tokenizer((), "bytes"), {"A": 0, "B": 1}, max_length=None)
    assert max(len(part["input_ids"]) for part in parts) == MAX_TOKENS == len(parts[-1]["input_ids"])
    assert [label for part in parts for label in part["labels"]] == [0, 1, 0] * 1000 + [1]


def test_a_word_of_invisible_characters_still_gets_a_tag():
    tokenizer = train_tokenizer((), "bytes")
    ((ids, words),) = _tokenize(["a", "\u200b\u0000", "b"], tokenizer, None)
    assert len(first_tokens(words)) == 3
    assert ids[first_tokens(words)[1]] == tokenizer.unk_token_id


def test_an_unknown_tag_counts_as_wrong(encoders, tmp_path):
    (tmp_path / "data").mkdir()
    line = "{}\t{}\t_\t{}\t_\t_\t_\t_\t_\t_\n"
    for split, tags in (("train", ["A", "B"]), ("dev", ["A", "B"]), ("test", ["A", "C"])):
        sentence = "".join(line.format(i + 1, word, tag) for i, (word, tag) in enumerate(zip("xy", tags, strict=True)))
        (tmp_path / "data" / f"{split}.conllu").write_text((sentence + "\n") * 4)
    flags = {"encoder": str(encoders["elmo"]), "data": str(tmp_path / "data"), "output_dir": str(tmp_path / "out")}
    record = finetune("pos", **flags, max_steps=30, learning_rate=1e-2, batch_size=4)
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(0.5)
    assert record["metrics"]["f1_C"]["value"] == 0


def test_a_folder_that_is_not_a_tagger_is_refused(encoders):
    from tasks import task_of

    with pytest.raises(InputError, match="expected a fine-tuned checkpoint"):
        task_of(str(encoders["bert"]))


def test_a_bert_reads_at_most_its_pretraining_length(encoders, tmp_path):
    """A sentence of 200 words is tagged in parts of at most 128 pieces, each word once."""
    tokenizer = AutoTokenizer.from_pretrained(encoders["bert"])
    assert tokenizer.model_max_length == 128
    rows = [{"tokens": ["word"] * 200}]
    features = TASKS["pos"].encode_words(rows, tokenizer, {}, tokenizer.model_max_length)
    assert max(len(part["input_ids"]) for part in features) <= 128
    assert len(features) > 1
    assert sum(len(first_tokens(part["words"])) for part in features) == 200
