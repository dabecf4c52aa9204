"""An encoder, a task and a modality, each in one file outside the toolkit, work with every command."""

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY
from forks import run_forked

PLUGINS = REPOSITORY / "tests" / "plugins"
RUN_ALL = f"""
import contextlib, importlib, io, json, sys
sys.path.insert(0, {str(PLUGINS)!r})
importlib.import_module(sys.argv[1])
from toolkit.cli.dispatch import main
printed = []
for words in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        try:
            code = main(words)
        except SystemExit as end:  # of --help
            code = end.code
        assert not code, words
    printed.append(stdout.getvalue())
print(json.dumps(printed))
"""


def run_all(plugin: str, *commands: list, folder: Path, **environment: str) -> list[str]:
    """The output of each command with the plugin, all run in one new process."""
    script = folder / "run_all.py"
    script.write_text(RUN_ALL)
    words = json.dumps([list(map(str, command)) for command in commands])
    done = run_forked([plugin, words], REPOSITORY, script=script, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def read(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["hashed_words", "noun_phrases"])
def test_an_encoder_and_a_task_take_less_than_a_hundred_lines(name):
    assert len((PLUGINS / f"{name}.py").read_text().splitlines()) < 100


def test_a_new_encoder_has_every_command(corpus, hub, tmp_path):
    encoder, tagger, classifier, known = (tmp_path / name for name in ("encoder", "tagger", "classifier", "known"))
    data = ["--data", "sample", "--train_size", 60, "--max_steps", 30, "--learning_rate", "1e-2"]
    score = tmp_path / "score.json"
    help_text, pretrained, _, scored, predicted, _, compared, episodes, *_, pushed = run_all(
        "hashed_words",
        ["pretrain", "--help"],
        ["pretrain", "hashed-words", "--corpus", corpus, "--output_dir", encoder, "--max_steps", 40],
        ["finetune", "pos", "--encoder", encoder, "--output_dir", tagger, *data],
        ["score", tagger, "--data", "sample", "--output_file", score],
        ["predict", tagger, "The dog barks."],
        ["finetune", "text", "--encoder", encoder, "--output_dir", classifier, *data],
        ["compare", "--encoders", encoder, "--data", "sample", "--train_sizes", 20, "--seeds", 1]
        + ["--max_steps", 5, "--output_dir", tmp_path / "comparison"],
        ["fewshot", "evaluate", "--encoder", encoder, "--data", "sample", "--episodes", 20, "--queries", 4],
        ["fewshot", "fit", "--encoder", encoder, "--data", "sample", "--output_dir", known],
        ["fewshot", "predict", "--encoder", known, "The dog barks."],
        ["push", tagger, "me/hashed-words"],
        folder=tmp_path,
        **hub.environment,
    )
    assert "hashed-words" in help_text
    assert f"{encoder}: " in pretrained
    record = read(tagger)
    assert json.loads(score.read_text())["metrics"] == record["metrics"]
    assert f"{record['metrics']['accuracy']['value']:.4f}" in scored
    assert [line.split("\t")[0] for line in predicted.strip().split("\n")] == ["The", "dog", "barks", "."]
    right = [line["predicted"] == line["label"] for line in lines_of(classifier)]
    assert read(classifier)["metrics"]["accuracy"]["value"] == pytest.approx(sum(right) / len(right))
    assert "gain over scratch" in compared
    assert episodes.startswith("5-way 5-shot on sample")
    assert "me/hashed-words" in pushed
    card = Path(hub.api().hf_hub_download("me/hashed-words", "README.md", local_dir=tmp_path / "card")).read_text()
    assert "bag of hashed words" in card
    assert "https://arxiv.org/abs/0902.2206" in card


def test_a_new_task_has_every_command(encoders, hub, tmp_path):
    model = tmp_path / "model"
    flags = ["--data", "sample", "--max_steps", 80, "--learning_rate", "1e-2", "--output_dir", model]
    flags += ["--train_size", 200]
    _, scored, predicted, compared, pushed = run_all(
        "noun_phrases",
        ["finetune", "noun-phrases", "--encoder", encoders["elmo"], *flags],
        ["score", model, "--data", "sample", "--output_file", tmp_path / "score.json"],
        ["predict", model, "The old dog barks."],
        ["compare", "--task", "noun-phrases", "--encoders", encoders["elmo"], "--data", "sample", "--train_sizes", 20]
        + ["--seeds", 1, "--max_steps", 5, "--output_dir", tmp_path / "comparison"],
        ["push", model, "me/noun-phrases"],
        folder=tmp_path,
        **hub.environment,
    )
    metrics = read(model)["metrics"]
    hits = num_right = num_found = 0
    for line in lines_of(model):
        right, found = (_spans(line[name]) for name in ("tags", "predicted"))
        hits, num_right, num_found = hits + len(right & found), num_right + len(right), num_found + len(found)
    assert metrics["span_f1"]["value"] == pytest.approx(2 * hits / (num_right + num_found))
    assert metrics["span_f1"]["value"] > 0.3
    assert json.loads((tmp_path / "score.json").read_text())["metrics"] == metrics
    assert "span_f1" in scored
    assert not (model / "confusion_matrix.png").exists()
    assert [line.split("\t")[0] for line in predicted.strip().split("\n")] == ["The", "old", "dog", "barks", "."]
    assert "span_f1" in compared
    assert "span_f1" in (tmp_path / "comparison" / "report.html").read_text()
    assert "me/noun-phrases" in pushed


def _spans(marks: list[str]) -> set[tuple[int, ...]]:
    """The positions of each phrase, found differently from the plugin: by extending each phrase."""
    phrases: list[list[int]] = []
    for position, mark in enumerate(marks):
        if mark == "I" and phrases and phrases[-1][-1] == position - 1:
            phrases[-1].append(position)
        elif mark != "O":
            phrases.append([position])
    return {tuple(phrase) for phrase in phrases}


def test_a_new_modality_has_every_command(hub, tmp_path):
    from sklearn.datasets import load_iris

    model = tmp_path / "model"
    flags = ["--encoder", "scratch:number-net-tiny", "--data", "sample", "--max_steps", 150, "--learning_rate", "1e-2"]
    _, _, predicted, episodes, compared, _ = run_all(
        "number_rows",
        ["finetune", "numbers", *flags, "--output_dir", model],
        ["score", model, "--data", "sample", "--output_file", tmp_path / "score.json"],
        ["predict", model, *(" ".join(map(str, row)) for row in load_iris().data[[0, 149]])],
        ["fewshot", "evaluate", "--encoder", model, "--data", "sample", "--ways", 3, "--shots", 2, "--queries", 5]
        + ["--episodes", 20],
        ["compare", "--task", "numbers", "--encoders", model, "--data", "sample", "--train_sizes", 10, "--seeds", 1]
        + ["--max_steps", 5, "--output_dir", tmp_path / "comparison"],
        ["push", model, "me/numbers"],
        folder=tmp_path,
        **hub.environment,
    )
    assert read(model)["metrics"]["accuracy"]["value"] > 0.85
    assert read(model)["n"] == 60
    assert json.loads((tmp_path / "score.json").read_text())["metrics"] == read(model)["metrics"]
    assert [line.split("\t")[0] for line in predicted.strip().split("\n")] == ["setosa", "virginica"]
    assert float(episodes.split("accuracy ")[1].split()[0]) > 0.8
    assert "gain over scratch" in compared
