"""Sources: every format gives the same text, and every error names its place."""

import gzip
import json

import datasets
import pytest

from toolkit.corpora.text import load_text
from toolkit.data.rows import hold_out, take_subset
from toolkit.data.sources import find_splits
from toolkit.data.treebank import load_sentences, load_treebank, split_sentences
from toolkit.errors import InputError

LINES = ["One small café.", "", "Two boats sail.", "Three."]

CONLLU = """\
# sent_id = 1
# text = I didn't go to Łódź
1\tI\tI\tPRON\tPRP\tNumber=Sing|Person=1\t4\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdid\tdo\tAUX\tVBD\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
4.1\twent\tgo\tVERB\t_\t_\t_\t_\t_\t_
5\tto\tto\tADP\tIN\t_\t6\tcase\t_\t_
6\tŁódź\tŁódź\tPROPN\tNNP\tNumber=Sing\t4\tobl\t_\tSpaceAfter=No|Lang=pl

1\tStop\tstop\tVERB\tVB\t_\t0\troot\t_\t_
"""


def write_text_sources(folder):
    (folder / "a.txt").write_text("\n".join(LINES), encoding="utf-8")
    with gzip.open(folder / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(LINES))
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"id": 1, "text": line}) for line in LINES), encoding="utf-8")
    (folder / "a.csv").write_text("id,text\n" + "\n".join(f'1,"{line}"' for line in LINES), encoding="utf-8")
    for name in ("a.jsonl", "a.csv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    datasets.Dataset.from_dict({"text": LINES}).to_parquet(folder / "a.parquet")


@pytest.mark.parametrize(
    "name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet", "a.t?t"]
)
def test_every_format_gives_the_same_lines(tmp_path, name):
    write_text_sources(tmp_path)
    assert load_text(str(tmp_path / name))["text"][:] == LINES


def test_folder_gives_the_files_of_the_split(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"en-{split}.txt").write_text(f"of {split}", encoding="utf-8")
    assert load_text(str(tmp_path))["text"][:] == ["of train"]
    assert load_text(str(tmp_path), "validation")["text"][:] == ["of dev"]
    (tmp_path / "en-dev.txt").unlink()
    with pytest.raises(InputError, match=r"no split 'validation' in it, found train, test"):
        load_text(str(tmp_path), "validation")


def test_folders_of_splits_are_kept_apart(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "en_test_bank.conllu").write_text(CONLLU.replace("Stop", split), encoding="utf-8")
        (tmp_path / split / "texts.txt").write_text(f"of {split}", encoding="utf-8")
    assert load_text(str(tmp_path))["text"][:] == ["of train"]
    for split in ("train", "validation", "test"):
        assert load_treebank(str(tmp_path), split)["tokens"][1] == [split]
    assert list(find_splits(str(tmp_path), {".conllu"}).splits) == ["train", "validation", "test"]


def test_folder_without_split_names_is_all_training(tmp_path):
    (tmp_path / "contest.txt").write_text("a contest is no test", encoding="utf-8")
    (tmp_path / "trains.txt").write_text("trains are no training", encoding="utf-8")
    assert len(load_text(str(tmp_path))) == 2


def test_a_changed_file_is_noticed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    assert load_text(str(path))["text"][:] == ["before"]
    path.write_text("after it")
    assert load_text(str(path))["text"][:] == ["after it"]


def test_the_sample_holds_out_other_articles():
    train, validation = (set(load_text("sample", split)["text"]) - {""} for split in ("train", "validation"))
    assert sum(len(text.split()) for text in train) > 400_000
    assert sum(len(text.split()) for text in validation) > 20_000
    assert not train & validation


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n  \n\n", "only empty lines"),
        (b"\x7fELF\x00\x01", "binary"),
        ("first\nseñor".encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xf1 at column 3\)"),
    ],
)
def test_bad_text_is_named(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_text(str(path))
    assert "bad.txt" in str(error.value)


def test_a_missing_column_lists_the_columns(tmp_path):
    write_text_sources(tmp_path)
    with pytest.raises(InputError, match=r"no such column in .* found id, text"):
        load_text(str(tmp_path / "a.csv"), text_column="body")
    with pytest.raises(InputError, match="not text"):
        load_text(str(tmp_path / "a.csv"), text_column="id")


def test_held_out_lines_are_the_last_and_no_line_is_lost():
    rows = datasets.Dataset.from_dict({"text": [str(i) for i in range(50)]})
    train, validation = hold_out(rows, 0.1)
    assert train["text"][:] + validation["text"][:] == rows["text"][:]
    assert len(validation) == 5
    with pytest.raises(InputError, match="1 rows, too few"):
        hold_out(rows.select([0]), 0.1)


def test_conllu_multiword_tokens_and_empty_nodes_are_not_words(tmp_path):
    path = tmp_path / "test.conllu"
    path.write_text(CONLLU, encoding="utf-8")
    rows = load_treebank(str(path))
    assert rows["tokens"][:] == [["I", "did", "n't", "go", "to", "Łódź"], ["Stop"]]
    assert rows["tags"][0] == ["PRON", "AUX", "PART", "VERB", "ADP", "PROPN"]
    with gzip.open(tmp_path / "test.conllu.gz", "wt", encoding="utf-8") as file:
        file.write(CONLLU)
    assert load_treebank(str(tmp_path / "test.conllu.gz"))[:] == rows[:]


@pytest.mark.parametrize("start", ["", "# sent_id = 1\n"])
def test_a_treebank_of_a_windows_editor_has_no_mark_and_no_carriage_returns(tmp_path, start):
    """The byte-order mark is neither a part of a comment nor of the number of the first word."""
    text = start + "".join(line for line in CONLLU.splitlines(keepends=True) if not line.startswith("#"))
    path = tmp_path / "a.conllu"
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    rows = load_treebank(str(path))
    assert rows["tokens"][:] == [["I", "did", "n't", "go", "to", "Łódź"], ["Stop"]]
    assert rows["tags"][1] == ["VERB"]
    assert load_sentences(str(path)) == rows["tokens"][:]


@pytest.mark.parametrize("num_withheld", [1, 2])
def test_a_treebank_that_withholds_its_words_is_refused(tmp_path, num_withheld):
    """Among ten words one may be an underscore; where words may not be passed on, nearly all are."""
    words = ["_"] * num_withheld + ["word"] * (10 - num_withheld)
    path = tmp_path / "a.conllu"
    path.write_text("".join(f"{n}\t{word}\t_\tNOUN\t_\t_\t_\t_\t_\t_\n" for n, word in enumerate(words, 1)) + "\n")
    if num_withheld == 1:
        assert load_treebank(str(path))["tokens"][:] == [words]
    else:
        with pytest.raises(InputError, match="20% of the words are '_': this copy of the treebank has no words"):
            load_treebank(str(path))


@pytest.mark.parametrize(
    ("column", "tags"),
    [
        ("xpos", ["PRP", "VBD", "RB", "VB", "IN", "NNP"]),
        ("Number", ["Sing", "_", "_", "_", "_", "Sing"]),
        ("Lang", ["_", "_", "_", "_", "_", "pl"]),
    ],
)
def test_any_column_or_key_can_be_the_tag(tmp_path, column, tags):
    path = tmp_path / "a.conllu"
    path.write_text(CONLLU, encoding="utf-8")
    assert load_treebank(str(path), tag_column=column)["tags"][0] == tags


def test_short_line_and_unknown_key_are_named(tmp_path):
    path = tmp_path / "a.conllu"
    path.write_text(CONLLU.replace("\t_\t4\taux\t_\t_", ""), encoding="utf-8")
    with pytest.raises(InputError, match="line 5 has 5 columns"):
        load_treebank(str(path))
    path.write_text(CONLLU, encoding="utf-8")
    with pytest.raises(InputError, match="--tag_column Nmber: no word of"):
        load_treebank(str(path), tag_column="Nmber")


def test_tables_of_tokens_and_tags_read_like_treebanks(tmp_path):
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "upos": datasets.List(datasets.ClassLabel(names=["NOUN", "VERB"])),
        }
    )
    rows = datasets.Dataset.from_dict({"tokens": [["dogs", "bark"]], "upos": [[0, 1]]}, features=features)
    rows.to_json(tmp_path / "a.jsonl")
    rows.to_parquet(tmp_path / "a.parquet")
    assert load_treebank(str(tmp_path / "a.parquet"))[0] == {"tokens": ["dogs", "bark"], "tags": ["NOUN", "VERB"]}
    assert load_treebank(str(tmp_path / "a.jsonl"))[0]["tags"] == ["0", "1"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["dogs", "bark"], "tags": ["NOUN", None]}, "row 2 has a word without a tag"),
        ({"tokens": ["dogs", "bark"], "tags": ["NOUN"]}, "row 2 has 2 tokens and 1 tags"),
    ],
)
def test_a_faulty_row_of_a_table_is_named(tmp_path, row, message):
    good = {"tokens": ["stop"], "tags": ["VERB"]}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [good, row])))
    with pytest.raises(InputError, match=message):
        load_treebank(str(tmp_path / "a.jsonl"))


def test_empty_sentences_are_left_out_and_a_text_is_not_a_list_of_words(tmp_path):
    rows = [{"tokens": [], "tags": []}, {"tokens": ["stop"], "tags": ["VERB"]}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_treebank(str(tmp_path / "a.jsonl"))["tokens"][:] == [["stop"]]
    for column in ("tokens", "tags"):
        (tmp_path / "b.jsonl").write_text(json.dumps(rows[1] | {column: "stop"}))
        with pytest.raises(InputError, match=f"the column '{column}' holds .*expected lists of"):
            load_treebank(str(tmp_path / "b.jsonl"))


def test_words_are_read_from_files_without_tags(tmp_path):
    (tmp_path / "a.conllu").write_text(CONLLU.replace("PRON", "_").replace("VERB", "_"), encoding="utf-8")
    assert load_sentences(str(tmp_path / "a.conllu"))[1] == ["Stop"]
    (tmp_path / "a.jsonl").write_text(json.dumps({"words": ["Stop", "!"]}))
    assert load_sentences(str(tmp_path / "a.jsonl")) == [["Stop", "!"]]


def test_subsets_are_nested_seeded_and_bounded():
    rows = datasets.Dataset.from_dict({"i": list(range(100))})
    small, large = take_subset(rows, 10, seed=3)["i"][:], take_subset(rows, 50, seed=3)["i"][:]
    assert large[:10] == small
    assert take_subset(rows, 10, seed=4)["i"][:] != small
    with pytest.raises(InputError, match="--train_size 101 is larger than the training data, which has 100"):
        take_subset(rows, 101)


def test_plain_text_is_split_as_treebanks_split_it():
    assert split_sentences("Don't stop. It's 5%!\nYes") == [
        ["Do", "n't", "stop", "."],
        ["It", "'s", "5", "%", "!"],
        ["Yes"],
    ]


def test_the_sample_treebank_is_valid():
    universal = set("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
    splits = [load_treebank("sample", split) for split in ("train", "validation", "test")]
    sentences = [tuple(tokens) for rows in splits for tokens in rows["tokens"]]
    assert [len(rows) for rows in splits] == [241, 56, 133]
    assert sum(map(len, sentences)) == 7147
    assert len(set(sentences)) == len(sentences)
    assert {tag for rows in splits for tags in rows["tags"] for tag in tags} == universal


def test_the_sample_treebank_spells_its_text():
    """The words and multiword tokens, joined according to SpaceAfter, give the text in `# text`."""
    from importlib.resources import files

    for path in (files("toolkit.data") / "samples" / "treebank").iterdir():
        for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
            lines = block.split("\n")
            text = next(line.removeprefix("# text = ") for line in lines if line.startswith("# text"))
            spelled, last_of_token = "", 0
            for line in lines:
                fields = line.split("\t")
                if line.startswith("#") or ("-" not in fields[0] and int(fields[0]) <= last_of_token):
                    continue
                last_of_token = int(fields[0].split("-")[-1])
                spelled += fields[1] + ("" if "SpaceAfter=No" in fields[9] else " ")
            assert spelled.strip() == text
