"""The quickstart with a fiftieth of its steps: every part runs, and the page is self-contained."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from in_process import error_of, run_here
from PIL import Image

from toolkit.cli.quickstart import _notes
from toolkit.runs.tables import conclusions, is_significant


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    done = run_here("quickstart", "--output_dir", folder, "--budget", "0.005")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_table_and_next_commands_are_printed(quickstart):
    folder, done = quickstart
    for name in ("word2vec", "elmo", "bert", "resnet", "parameters", "peak memory", "gain over scratch", "50 labels"):
        assert name in done.stdout
    assert len(re.findall(r"^  toolkit ", done.stdout, flags=re.MULTILINE)) == 3
    assert str(folder / "report.html") in done.stdout
    assert re.search(r"^\[\d:\d\d\] \d+/\d+ runs done", done.stderr, flags=re.MULTILINE)


def test_figures_equal_those_of_the_runs(quickstart):
    folder, _ = quickstart
    record = json.loads((folder / "pos" / "results.json").read_text())
    assert [encoder["name"] for encoder in record["encoders"]] == ["word2vec", "elmo", "bert"]
    for encoder in record["encoders"]:
        assert encoder["budgets"][0]["train_size"] == 50
        for budget in encoder["budgets"]:
            by_seed = {}
            for variant in ("pretrained", "scratch"):
                results = [json.loads(Path(run, "results.json").read_text()) for run in budget[variant]["folders"]]
                assert [result["seed"] for result in results] == [0, 1, 2]
                assert len({result["num_steps"] for result in results}) == 1
                by_seed[variant] = [result["metrics"]["accuracy"]["value"] for result in results]
                assert budget[variant]["accuracy"]["value"] == pytest.approx(sum(by_seed[variant]) / 3)
            gain = sum(by_seed["pretrained"]) / 3 - sum(by_seed["scratch"]) / 3
            assert budget["gain"]["value"] == pytest.approx(gain)
            assert budget["gain"]["low"] <= gain <= budget["gain"]["high"]


def test_learning_rates_are_chosen_on_validation_data(quickstart):
    folder, _ = quickstart
    record = json.loads((folder / "pos" / "results.json").read_text())
    for cell in (folder / "pos").glob("*/*-50"):
        tried = [json.loads((run / "results.json").read_text()) for run in cell.glob("seed0-*")]
        assert {run["arguments"]["learning_rate"] for run in tried} == set(record["learning_rates"])
        best = max(run["validation_metrics"]["accuracy"]["value"] for run in tried)
        encoder = next(e for e in record["encoders"] if e["name"] == cell.parent.name)
        chosen = encoder["budgets"][0][cell.name.split("-")[0]]["learning_rate"]
        of_chosen = next(run for run in tried if run["arguments"]["learning_rate"] == chosen)
        assert of_chosen["validation_metrics"]["accuracy"]["value"] == best


def test_unseen_digits_are_classified(quickstart):
    folder, _ = quickstart
    assert set(json.loads((folder / "resnet" / "config.json").read_text())["label2id"]) == set("01234")
    record = json.loads((folder / "image" / "results.json").read_text())
    assert [budget["name"] for budget in record["encoders"][0]["budgets"]] == [
        "2 labels a class",
        "10 labels a class",
    ]
    assert {label for example in record["examples"] for cell in example["right"] for label in cell} <= set("56789")
    shown = record["examples"][0]["picture"].removeprefix("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(shown))).size == (8, 8)


def test_the_page_stands_alone_and_shows_table_plots_and_sentences(quickstart):
    folder, _ = quickstart
    page = (folder / "report.html").read_text(encoding="utf-8")
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append(tag)
            for name, value in attributes:
                if name in ("src", "href", "xlink:href"):
                    assert value.startswith(("#", "data:image/png;base64,")), value

    Reader().feed(page)
    assert seen.count("svg") == 1 + 3
    assert seen.count("table") == 3 * (1 + 6)
    assert seen.count("img") == 6
    assert "url(http" not in page
    assert "<script" not in page


def test_another_folder_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    assert "holds something else" in error_of(run_here("quickstart", "--output_dir", tmp_path / "mine"))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "precious"


def test_a_bound_of_zero_up_to_rounding_is_not_significant():
    assert not is_significant({"value": 0.06, "low": 3.7e-18, "high": 0.12})
    assert is_significant({"value": 0.06, "low": 0.001, "high": 0.12})
    assert is_significant({"value": -0.06, "low": -0.1, "high": -0.001})


def test_an_encoder_that_gained_nothing_is_explained():
    def encoder(name: str, low: float, high: float) -> dict:
        gain = {"value": (low + high) / 2, "low": low, "high": high}
        budget = {"name": "50 labels", "gain": gain}
        figures = {"training_seconds": 60.0, "metrics": {"loss": {"value": 6.5}}}
        figures["arguments"] = {"mlm_probability": 0.2}
        return {"name": name, "budgets": [budget], "pretraining": figures}

    record = {"encoders": [encoder("elmo", 0.01, 0.03), encoder("bert", -0.01, 0.02)]}
    (note,) = _notes(record)
    assert note.startswith("bert gained nothing certain with 50 labels")
    assert "from 20% of the tokens" in note
    assert "no difference" in conclusions(record)[1]
    assert "pretraining helped" in conclusions(record)[0]
