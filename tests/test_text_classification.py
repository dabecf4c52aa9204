"""The text task, from every kind of source to predictions, on each family of encoders."""

import json

import datasets
import pytest
from conftest import FAMILIES, shelf
from in_process import run_here
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score
from transformers import pipeline

from tasks import finetune, predict
from toolkit.data.labelled_text import load_labelled_text, open_labelled_text
from toolkit.errors import InputError

ROWS = {"text": ["good film", "bad film", "so good", "too bad"], "label": ["pos", "neg", "pos", "neg"]}


@pytest.fixture(scope="module")
def classifiers(encoders, tmp_path_factory):
    """A classifier of two genres of the sample on each of `encoders`."""
    root = tmp_path_factory.mktemp("classifiers")
    (root / "data").mkdir()
    for split in ("train", "validation", "test"):
        rows = load_labelled_text("sample", split).filter(lambda row: row["label"] in ("questions", "instructions"))
        rows.to_json(root / "data" / f"{split}.jsonl")
    for family, encoder in encoders.items():
        flags = ["--encoder", encoder, "--data", root / "data", "--output_dir", root / family, "--max_steps", "120"]
        done = run_here("finetune", "text", *flags, "--batch_size", "16", "--learning_rate", "3e-3")
        assert done.returncode == 0, done.stderr
    return {family: root / family for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_metrics_equal_scikit_learn_on_the_predictions(classifiers, family):
    record = json.loads((classifiers[family] / "results.json").read_text())
    lines = [json.loads(line) for line in (classifiers[family] / "predictions.jsonl").read_text().splitlines()]
    right, predicted = [line["label"] for line in lines], [line["predicted"] for line in lines]
    assert record["task"] == "text"
    data = load_labelled_text(str(classifiers[family].parent / "data"), "test")
    assert record["n"] == len(lines) == len(data)
    assert [line["text"] for line in lines] == data["text"][:]
    metrics = record["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(accuracy_score(right, predicted))
    assert metrics["macro_f1"]["value"] == pytest.approx(f1_score(right, predicted, average="macro"))
    assert metrics["accuracy"]["value"] > 0.7, "better than guessing"


@pytest.mark.parametrize("family", FAMILIES)
def test_score_predict_and_the_pipeline_agree(classifiers, family, tmp_path):
    data = classifiers[family].parent / "data"
    done = run_here("score", classifiers[family], "--data", data, "--output_file", tmp_path / "score.json")
    assert done.returncode == 0, done.stderr
    record = json.loads((classifiers[family] / "results.json").read_text())
    assert json.loads((tmp_path / "score.json").read_text())["metrics"] == record["metrics"]
    texts = ["Whisk two eggs, then fry them.", "Why do zorblifiers frobnicate?"]
    done = run_here("predict", classifiers[family], *texts)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[2] for row in rows] == texts
    answers = pipeline("text-classification", model=str(classifiers[family]))(texts)
    assert [row[0] for row in rows] == [answer["label"] for answer in answers]
    assert [float(row[1]) for row in rows] == pytest.approx([answer["score"] for answer in answers], abs=1e-3)


def test_the_confusion_matrix_is_drawn(classifiers, tmp_path):
    with Image.open(classifiers["bert"] / "confusion_matrix.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200
        assert len(set(picture.convert("L").tobytes())) > 20


def write(kind: str, folder) -> str:
    rows = datasets.Dataset.from_dict(ROWS)
    if kind == "class folders":
        for split in ("train", "test"):
            for i, row in enumerate(rows):
                file = folder / split / row["label"] / f"{i}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(row["text"] + "\n")
        return str(folder)
    if kind == "class labels":
        rows = rows.cast_column("label", datasets.ClassLabel(names=["neg", "pos"]))
        rows.to_parquet(folder / "train.parquet")
        return str(folder / "train.parquet")
    getattr(rows, {"csv": "to_csv", "jsonl": "to_json"}[kind])(folder / f"data.{kind}")
    return str(folder / f"data.{kind}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "class labels", "class folders"])
def test_every_kind_of_source_gives_the_same_rows(kind, tmp_path):
    rows = load_labelled_text(write(kind, tmp_path), "train")
    assert sorted(zip(rows["text"], rows["label"], strict=True)) == sorted(zip(*ROWS.values(), strict=True))


def test_class_folders_have_splits(tmp_path):
    assert open_labelled_text(write("class folders", tmp_path)).splits == ("train", "test")
    (tmp_path / "flat" / "pos").mkdir(parents=True)
    (tmp_path / "flat" / "pos" / "1.txt").write_text("x")
    assert open_labelled_text(str(tmp_path / "flat")).splits == ("train",)


def test_shared_data_sets_load_with_their_labels():
    assert set(load_labelled_text(str(shelf("trec")), "test")["label"]) == set("ABBR DESC ENTY HUM LOC NUM".split())
    assert len(load_labelled_text(str(shelf("banking77")), "train")) == 10003


def test_a_budget_per_class_takes_as_many_of_each_class(encoders, tmp_path):
    rows = load_labelled_text("sample", "train")
    smallest = min(rows["label"].count(label) for label in set(rows["label"][:]))
    flags = {"encoder": str(encoders["word2vec"]), "data": "sample", "output_dir": str(tmp_path / "out")}
    record = finetune("text", **flags, max_steps=1, train_size=smallest, per_class=True)
    assert record["train_size"] == smallest * len(set(rows["label"][:]))


def test_the_learning_rate_is_chosen_on_validation_data(encoders, tmp_path):
    flags = {"encoder": str(encoders["elmo"]), "data": "sample", "output_dir": str(tmp_path / "out")}
    record = finetune("text", **flags, max_steps=40, learning_rates=[1e-6, 3e-3])
    tried = record["learning_rates_tried"]
    assert list(tried) == ["1e-06", "0.003"]
    assert tried["0.003"] > tried["1e-06"]
    assert record["learning_rate"] == 3e-3
    assert json.loads((tmp_path / "out" / "results.json").read_text())["learning_rates_tried"] == tried
    assert predict(str(tmp_path / "out"), ["Who?"])[0]["predicted"]


FAULTS = {
    "a text without a label": ({"text": ["a", "b"], "label": ["x", None]}, "row 2 has no label"),
    "no such column": ({"text": ["a", "b"], "stars": [1, 2]}, "use --label_column"),
    "labels that are numbers": ({"text": ["a", "b"], "label": [0.5, 1.5]}, "holds float64"),
    "one label only": ({"text": ["a", "b", "c"], "label": ["x", "x", "x"]}, "the only label is x"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data_ends_with_one_clear_line(fault, encoders, tmp_path):
    rows, message = FAULTS[fault]
    (tmp_path / "data.jsonl").write_text(
        "".join(json.dumps(dict(zip(rows, values, strict=True))) + "\n" for values in zip(*rows.values(), strict=True))
    )
    flags = {"encoder": str(encoders["word2vec"]), "data": str(tmp_path / "data.jsonl")}
    with pytest.raises(InputError, match=message):
        finetune("text", **flags, output_dir=str(tmp_path / "out"), max_steps=1)
    assert not (tmp_path / "out").exists()


def test_a_tagger_has_no_budget_per_class(encoders, tmp_path):
    flags = {"encoder": str(encoders["word2vec"]), "data": "sample", "output_dir": str(tmp_path / "out")}
    with pytest.raises(InputError, match="--per_class"):
        finetune("pos", **flags, max_steps=1, train_size=2, per_class=True)
