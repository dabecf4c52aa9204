"""Labels are what the file says: text stays text, a negative id is no label, ids keep the order that is declared."""

import csv
import json
import random
import unicodedata

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from in_process import error_of, run_here

from tasks import TASKS, finetune
from toolkit.cli.finetune import parse
from toolkit.data.labelled_text import load_labelled_text
from toolkit.data.treebank import load_treebank
from toolkit.errors import InputError


def write_csv(path, labels, texts=None):
    rows = [f"{text},{label}\n" for text, label in zip(texts or map(str, range(len(labels))), labels, strict=True)]
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "labels",
    [["EU", "NA"], ["some", "None"], ["01", "002"], ["1.0", "2"], ["True", "FALSE"], ["null", "nan"], ["1e3", "-"]],
)
def test_text_of_a_csv_is_text(tmp_path, labels):
    texts = ["null", "NA", "007", "1.50"]
    rows = load_labelled_text(write_csv(tmp_path / "data.csv", 2 * labels, texts))
    assert rows["label"][:] == 2 * labels
    assert rows["text"][:] == texts


def test_a_table_of_tabs_and_quotes_is_read(tmp_path):
    (tmp_path / "data.tsv").write_bytes('\ufefftext\tlabel\r\n"two\nlines"\ta\r\none, two\tb\r\n'.encode())
    rows = load_labelled_text(str(tmp_path / "data.tsv"))
    assert rows["text"][:] == ["two\nlines", "one, two"]
    assert rows["label"][:] == ["a", "b"]


def test_codes_are_the_same_in_every_split(tmp_path):
    write_csv(tmp_path / "train.csv", ["01", "02", "x"] * 10)
    write_csv(tmp_path / "test.csv", ["01", "02"] * 5)
    assert set(load_labelled_text(str(tmp_path), "test")["label"]) == {"01", "02"}
    assert set(load_labelled_text(str(tmp_path), "train")["label"]) == {"01", "02", "x"}


def test_an_empty_label_is_named_by_its_row(tmp_path):
    with pytest.raises(InputError, match=r"data\.csv: row 3 has no label"):
        load_labelled_text(write_csv(tmp_path / "data.csv", ["0", "1", " "]))


def test_labels_are_compared_in_nfc_and_without_blanks(tmp_path):
    rows = load_labelled_text(write_csv(tmp_path / "data.csv", ["caf\u00e9", "cafe\u0301 ", "tea"]))
    assert rows["label"][:] == ["café", "café", "tea"]


def parquet(path, labels, names=None):
    feature = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    features = datasets.Features({"text": datasets.Value("string"), "label": feature})
    rows = {"text": [f"text {number}" for number in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return str(path)


def test_a_negative_id_is_no_label(tmp_path):
    with pytest.raises(InputError, match=r"row 2 has no label \(-1\)"):
        load_labelled_text(parquet(tmp_path / "a.parquet", [0, -1], ["neg", "pos"]))
    with pytest.raises(InputError, match="all rows have the label -1"):
        load_labelled_text(parquet(tmp_path / "b.parquet", [-1, -1]))
    assert load_labelled_text(parquet(tmp_path / "c.parquet", [-1, 0, 1]))["label"][:] == ["-1", "0", "1"]


@pytest.mark.parametrize("column", ["ner_tags", "tags"])
@pytest.mark.parametrize("names", [["O", "PER", "LOC"], None])
def test_tags_with_a_negative_id_are_ignored(tmp_path, encoders, names, column):
    tag = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), column: datasets.List(tag)})
    no_tag = -1 if names else -100
    rows = {"tokens": [["Anna", "went", "to", "Rome", "."]] * 20, column: [[1, 0, 0, 2, no_tag]] * 20}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")
    source = str(tmp_path / "data.parquet")
    assert load_treebank(source)["tags"][0] == [*(["PER", "O", "O", "LOC"] if names else ["1", "0", "0", "2"]), None]
    record = finetune(
        "pos", encoder=str(encoders["word2vec"]), data=source, output_dir=str(tmp_path / "out"), max_steps=20
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert list(config["id2label"].values()) == (names or ["0", "1", "2"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    right = [p == t for line in lines for p, t in zip(line["predicted"], line["tags"], strict=True) if t is not None]
    assert len(right) == 4 * len(lines)
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["neg"], ["pos"]], r"holds List, such as \['neg'\] in row 1"),
        ([0.5, 1.5], "holds float64, such as 0.5 in row 1"),
        (["0", 1], "expected labels: strings or whole numbers"),
        ([{"a": 1}, {"a": 2}], "expected labels: strings or whole numbers"),
    ],
)
def test_labels_of_another_type_are_refused(tmp_path, labels, message):
    lines = [json.dumps({"text": f"text {n}", "label": label}) + "\n" for n, label in enumerate(labels)]
    (tmp_path / "data.jsonl").write_text("".join(lines))
    with pytest.raises(InputError, match=message):
        load_labelled_text(str(tmp_path / "data.jsonl"))


@pytest.mark.parametrize("kind", ["parquet of lists", "json of columns"])
def test_lists_of_labels_are_refused_in_every_format(tmp_path, kind):
    texts, labels = ["a text", "another"], [["neg", "long"], ["pos"]]
    if kind == "parquet of lists":
        datasets.Dataset.from_dict({"text": texts, "label": labels}).to_parquet(tmp_path / "data.parquet")
        first = labels[0]
    else:
        (tmp_path / "data.json").write_text(json.dumps({"text": texts, "label": ["neg", "pos"]}))
        first = ["neg", "pos"]
    done = run_here("doctor", "--data", tmp_path, "--task", "text")
    assert f"the column 'label' holds List, such as {first} in row 1" in error_of(done)


def test_numbers_sort_as_numbers(encoders, tmp_path):
    labels = [str(n % 12) for n in range(120)]
    source = write_csv(tmp_path / "topics.csv", labels, [f"text {n}" for n in range(120)])
    finetune("text", encoder=str(encoders["word2vec"]), data=source, output_dir=str(tmp_path / "out"), max_steps=1)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {str(n): str(n) for n in range(12)}


def test_declared_labels_keep_their_ids(encoders, tmp_path):
    names = ["zebra", "ape", "mole", "never seen"]
    labels = [random.Random(0).randrange(3) for _ in range(60)]
    source = parquet(tmp_path / "data.parquet", labels, names)
    finetune("text", encoder=str(encoders["word2vec"]), data=source, output_dir=str(tmp_path / "out"), max_steps=1)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {str(n): name for n, name in enumerate(names)}


def test_labels_that_one_split_alone_has_are_said(encoders, tmp_path):
    write_csv(tmp_path / "train.csv", ["01", "02", "x"] * 10)
    write_csv(tmp_path / "dev.csv", ["01", "02"] * 5)
    write_csv(tmp_path / "test.csv", ["01", "03"] * 5)
    flags = [
        "--encoder",
        encoders["word2vec"],
        "--data",
        tmp_path,
        "--max_steps",
        "1",
        "--output_dir",
        tmp_path / "out",
    ]
    done = run_here("finetune", "text", *flags)
    assert done.returncode == 0, done.stderr
    assert "labels that only train has: x" in done.stderr
    assert "labels that only test has: 03" in done.stderr


def test_a_broken_row_is_named(tmp_path):
    (tmp_path / "data.csv").write_text("text,label\na,b\nc\n")
    done = run_here(
        "finetune", "text", "--encoder", "scratch:bert-tiny", "--data", tmp_path / "data.csv", "--output_dir", "x"
    )
    assert "data.csv: cannot be read (CSV parse error: Row #3: Expected 2 columns, got 1: c)" in error_of(done)


@pytest.mark.parametrize("name", ["null", "~", "#1", "none", "[a]", "1e3"])
def test_a_column_may_have_any_name(tmp_path, name):
    """`--label_column null` is that column, and not the default."""
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"], name: ["p", "q"]}).to_csv(
        tmp_path / "data.csv"
    )
    flags = ["text", "--data", tmp_path / "data.csv", "--encoder", "e", "--output_dir", "o", "--label_column", name]
    _, arguments = parse(list(map(str, flags)))
    assert TASKS["text"].open(arguments.data.data, arguments.columns).load(None)["label"] == ["p", "q"]


def test_names_of_folders_are_compared_in_nfc(tmp_path):
    """A folder that was packed on macOS has decomposed letters."""
    for split, form in (("train", "NFC"), ("test", "NFD")):
        (tmp_path / split / unicodedata.normalize(form, "café")).mkdir(parents=True)
        (tmp_path / split / unicodedata.normalize(form, "café") / "0.txt").write_text("a text")
    assert (
        load_labelled_text(str(tmp_path), "train")["label"][:] == load_labelled_text(str(tmp_path), "test")["label"][:]
    )


def test_each_shard_is_read_with_its_own_names(tmp_path):
    parquet(tmp_path / "train-00000-of-00002.parquet", [1], ["neg", "pos"])
    parquet(tmp_path / "train-00001-of-00002.parquet", [0], ["pos", "neg"])
    assert load_labelled_text(str(tmp_path))["label"][:] == ["pos", "pos"]


def test_strings_of_json_that_look_like_dates_stay_strings(tmp_path):
    (tmp_path / "data.jsonl").write_text(
        '{"text": "2020-01-01", "label": "a"}\n{"text": "2021-02-03", "label": "b"}\n'
    )
    assert load_labelled_text(str(tmp_path / "data.jsonl"))["text"][:] == ["2020-01-01", "2021-02-03"]


@pytest.mark.parametrize("fault", ["two columns of one name", "an id that has no name"])
def test_a_malformed_table_is_refused(tmp_path, fault):
    (tmp_path / "data.csv").write_text("text,label,label\na,x,1\nb,y,2\n")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    table = pa.table({"text": ["a", "b"], "label": [0, 5]}, features.arrow_schema)
    pa.parquet.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(InputError):
        load_labelled_text(str(tmp_path / ("data.csv" if "column" in fault else "data.parquet")))


def test_quotes_in_a_tsv_are_text(tmp_path):
    """As text for people has them; with the rules of CSV, three lines would become one."""
    (tmp_path / "data.tsv").write_text('text\tlabel\n"hello, world\tpos\nplain\tneg\nhe said " and left\tneg\n')
    rows = load_labelled_text(str(tmp_path / "data.tsv"))
    assert rows["text"][:] == ['"hello, world', "plain", 'he said " and left']
    assert rows["label"][:] == ["pos", "neg", "neg"]


def test_quotes_that_hold_tabs_are_quotes(tmp_path):
    table = {"text": ["a\tb", 'c "d"', "e\nf"], "label": ["x", "y", "x"]}
    with open(tmp_path / "data.tsv", "w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([table, *zip(*table.values(), strict=True)])
    assert load_labelled_text(str(tmp_path / "data.tsv")).to_dict() == table


def test_blanks_around_tags_are_no_part_of_them(tmp_path):
    line = "{}\tdog\tdog\t{}\t_\t_\t0\troot\t_\t_\n"
    (tmp_path / "a.conllu").write_text(
        "".join(line.format(n, tag) for n, tag in enumerate(("NOUN", "NOUN "), 1)) + "\n"
    )
    assert load_treebank(str(tmp_path / "a.conllu"))["tags"][:] == [["NOUN", "NOUN"]]
