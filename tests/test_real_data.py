"""The claim of README about UD English EWT, with a fraction of the training time. Slow."""

import gzip
import json

import pytest
from conftest import run_toolkit, shelf

from toolkit.data.treebank import load_treebank


def test_shared_treebanks_have_the_number_of_words_of_their_readme():
    folder = shelf("ud_english_ewt")
    counts = {split: load_treebank(str(folder), split) for split in ("train", "validation", "test")}
    assert {split: len(rows) for split, rows in counts.items()} == {"train": 12544, "validation": 2001, "test": 2077}
    assert sum(map(len, counts["test"]["tokens"])) == 25094
    brown = load_treebank(str(shelf("brown")), "test")
    assert len(brown) == 6051
    with gzip.open(shelf("brown") / "test.conllu.gz", "rt", encoding="utf-8") as file:
        assert sum(map(len, brown["tokens"])) == sum(line[:1].isdigit() for line in file) == 121035


@pytest.mark.slow
def test_two_minutes_of_elmo_beat_training_from_scratch_at_500_sentences(tmp_path):
    corpus, treebank = shelf("text_corpus") / "train.txt", shelf("ud_english_ewt")
    flags = ["--corpus", corpus, "--output_dir", tmp_path / "elmo", "--max_minutes", "2"]
    assert run_toolkit("pretrain", "elmo", *flags).returncode == 0
    flags = ["--encoders", tmp_path / "elmo", "--data", treebank, "--output_dir", tmp_path / "pos"]
    flags += ["--train_sizes", "500", "--seeds", "1", "--learning_rates", "3e-3", "--max_steps", "200"]
    done = run_toolkit("compare", *flags)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "pos" / "results.json").read_text())
    assert record["encoders"][0]["budgets"][0]["gain"]["low"] > 0
