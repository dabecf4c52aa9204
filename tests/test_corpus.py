"""Corpora of any size: every format and block size gives the same rows, and unreadable input is named."""

import csv
import gzip
import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from toolkit.cli.dispatch import main
from toolkit.corpora import blocks
from toolkit.corpora import corpus as corpora
from toolkit.corpora.cleaning import MOST_FAULTS, Notes
from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.duplicates import DuplicateSearch
from toolkit.corpora.formats import json_rows
from toolkit.corpora.prepared import AsItIs, open_prepared, prepare
from toolkit.corpora.text import load_text
from toolkit.errors import InputError, RunFailed

FORMATS = ("txt", "txt.gz", "jsonl", "jsonl.gz", "json", "csv", "csv.gz", "parquet", "large.parquet")


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few kilobytes and batches of a few rows, read in small chunks."""
    for name, value in {"BYTES_A_BLOCK": 4_000, "BYTES_A_BATCH": 900, "ROWS_A_BATCH": 10, "CHUNK": 997}.items():
        monkeypatch.setattr(blocks, name, value)


@pytest.fixture
def toolkit(capsys):
    """Run a command in this process: a function that returns the exit code and what is printed to stderr."""

    def run(*words) -> tuple[int, str]:
        code = main(list(map(str, words)))
        return code, capsys.readouterr().err

    return run


def some_texts(seed: int = 0, size: int = 1500) -> list[str]:
    rng = random.Random(seed)
    words = ["small", "café", "Łódź", "of", "日本", "boats", "zürich's", '"quoted"', "a,b", "x" * 60]
    return [" ".join(rng.choices(words, k=rng.choice([0, 1, 3, 8, 30]))) for _ in range(size)]


def write(folder: Path, texts: list[str], suffix: str) -> Path:
    path = folder / f"texts.{suffix}"
    opened = gzip.open if suffix.endswith(".gz") else open
    if suffix.endswith("parquet"):
        table = pyarrow.table({"id": range(len(texts)), "text": texts})
        pyarrow.parquet.write_table(table, path, row_group_size=70 if suffix == "parquet" else 1000)
    elif suffix.startswith("csv"):
        with opened(path, "wt", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", "text"], *([i, text] for i, text in enumerate(texts))])
    elif suffix == "json":
        path.write_text(json.dumps([{"id": i, "text": text} for i, text in enumerate(texts)]), encoding="utf-8")
    else:
        rows = texts if suffix.startswith("txt") else [json.dumps({"id": 1, "text": text}) for text in texts]
        with opened(path, "wt", encoding="utf-8", newline="") as file:
            file.write("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_blocks_batches_and_slices_hold_every_row_once(small_blocks, tmp_path, suffix):
    texts = some_texts()
    corpus = open_corpus(str(write(tmp_path, texts, suffix)))
    assert len(corpus) == len(texts)
    assert list(corpus.texts()) == texts
    assert len(corpus.blocks) > 5 or suffix == "json"
    assert max(map(len, corpus)) == (9 if suffix == "large.parquet" else 10)  # those that fit, as its metadata say
    rng = random.Random(suffix)
    for _ in range(20):
        first, last = sorted(rng.sample(range(len(texts)), 2))
        some = corpus.rows(first, last)
        assert list(some.texts()) == texts[first:last]
        assert list(some.divided(4).texts()) == texts[first:last]
    train, held_out = corpus.hold_out(0.01)
    assert list(train.texts()) + list(held_out.texts()) == texts
    assert len(held_out) == 15
    assert corpus.spread(10) == texts[:: len(texts) // 10]


def test_each_process_decompresses_a_file_once(small_blocks, tmp_path, monkeypatch):
    texts = some_texts()
    corpus = open_corpus(str(write(tmp_path, texts, "txt.gz")))
    opened, open_file = [], blocks.open_file
    monkeypatch.setattr(blocks, "open_file", lambda file: opened.append(file) or open_file(file))
    some, others = iter(corpus), corpus.texts()  # side by side, so each has its own place in the file
    first = [next(others), *next(some)]
    assert first == [texts[0], *texts[: len(first) - 1]]
    assert list(others) == texts[1:]
    assert [text for batch in some for text in batch] == texts[len(first) - 1 :]
    opened.clear()
    assert list(corpus.texts()) == texts
    assert len(opened) <= 1


def test_windows_line_ends_byte_order_marks_and_a_missing_last_line_end(small_blocks, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo \xe2\x82\xac\rand more\nthree")
    assert list(open_corpus(str(path)).texts()) == ["one", "", "two €", "and more", "three"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "tsv"])
def test_every_line_end_is_read(small_blocks, tmp_path, suffix, line_end):
    """Also that of old Macs; chunks of 997 bytes end between the two characters of Windows now and then."""
    texts = some_texts()
    if suffix == "txt":
        lines = texts
    elif suffix == "jsonl":
        lines = [json.dumps({"text": text}) for text in texts]
    else:
        texts = [text.replace('"', "").replace(",", "").replace("\t", " ") for text in texts]
        lines = ["text", *texts]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(line_end.join(lines).encode())
    expected = texts if suffix in ("txt", "jsonl") else list(filter(None, texts))  # an empty row of a table is none
    corpus = open_corpus(str(path))
    assert list(corpus.texts()) == expected
    assert len(corpus) == len(expected)


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv"])
def test_lines_longer_than_the_read_buffer(small_blocks, tmp_path, suffix):
    texts = ["one", "long " * 1000, "two", "x" * 3000, "three"]
    assert list(open_corpus(str(write(tmp_path, texts, suffix))).texts()) == texts


def test_the_key_depends_on_the_content(tmp_path):
    texts, keys = some_texts(), {}
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        path = write(tmp_path / folder, texts, "txt")
        keys[folder] = open_corpus(str(path)).key
    assert keys["here"] == keys["there"]
    assert open_corpus(str(path)).rows(0, 5).key != open_corpus(str(path)).rows(0, 6).key
    changed = path.read_bytes().replace(b"small", b"smalL", 1)
    path.write_bytes(changed)
    assert open_corpus(str(path)).key != keys["there"]


def test_a_file_is_scanned_once(tmp_path, monkeypatch):
    import os
    import time

    path = write(tmp_path, some_texts(), "txt")
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    first = open_corpus(str(path))
    monkeypatch.setattr(corpora, "scan_file", None)  # who looks again fails
    assert open_corpus(str(path)) == first
    path.write_bytes(path.read_bytes().replace(b"small", b"smalL", 1))
    with pytest.raises(TypeError):
        open_corpus(str(path))


# What cannot be read


def bad_text(folder: Path) -> tuple[Path, list[str], dict[str, int]]:
    """A file with bad lines among good ones, the good ones, and where the bad ones are."""
    lines = [
        (b"first line", None),
        (b"with \0 a NUL byte", "NUL"),
        (b"second line\r", None),
        ("señor in Latin-1".encode("latin-1"), "not UTF-8"),
        (b"x" * (blocks.BYTES_A_LINE + 1), "longer than"),
        ("third line, in UTF-8: señor".encode(), None),
        ("in UTF-16".encode("utf-16"), "NUL"),
        (b"last line", None),
    ]
    content, places, good = b"", {}, []
    for number, (line, fault) in enumerate(lines, start=1):
        if fault:
            places[f"line {number} "] = len(content)
        else:
            good.append(line.decode().removesuffix("\r"))
        content += line + b"\n"
    (folder / "b.txt").write_bytes(content)
    return folder / "b.txt", good, places


def read_all(corpus, notes: Notes) -> list[str]:
    return [text for block in corpus.blocks for texts in corpus.read(block, notes) for text in texts]


def test_unreadable_lines_are_named_with_file_and_offset(tmp_path):
    path, good, places = bad_text(tmp_path)
    corpus, notes = open_corpus(str(path), on_error="skip"), Notes()
    assert read_all(corpus, notes) == good
    found = [*corpus.faults, *notes.faults]
    assert {fault.offset for fault in found} == set(places.values())
    for what, offset in places.items():
        (fault,) = (fault for fault in found if fault.offset == offset)
        assert fault.what.startswith(what), fault
        assert str(path) in str(fault)
    said = f"line 5 has 16,777,217 bytes.*at byte {places['line 5 ']}; or leave out.*--on_error skip"
    with pytest.raises(InputError, match=said):
        open_corpus(str(path))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_no_duplicates_are_searched_in_an_empty_corpus(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(InputError, match="there is no text in it"):
        open_corpus(str(tmp_path), on_error="skip", search=DuplicateSearch("exact"))


def test_batches_without_any_kept_line(tmp_path):
    """Readers never see empty batches, since the tokenizers library refuses an empty list."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\n" * 3000 + b"one\n" * 3000 + b"two\n")
    corpus = open_corpus(str(path), on_error="skip", search=DuplicateSearch("exact"))
    assert list(corpus) == [["one"], ["two"]]
    assert open_prepared(prepare(corpus, AsItIs()))["text"][:] == ["one", "two"]
    notes = Notes()
    list(corpus.read(corpus.blocks[0], notes))
    assert len(notes.faults) == MOST_FAULTS, "of millions some are kept, and all counted"
    lines = notes.lines()
    assert lines[0] == f"left out {path}: line 1 is not UTF-8 (byte 0xff at column 1); " + lines[0].partition("; ")[2]
    assert lines[10:] == ["left out 2,990 more", "left out, like an earlier one: 2,999 rows"]


def test_a_text_column_that_is_empty_at_first(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = ['{"id": 1}'] * 300 + ['{"id": 2, "text": "one"}']
    path.write_text("\n" * 300 + "\n".join(rows))
    assert list(filter(None, open_corpus(str(path)).texts())) == ["one"]
    path.write_text("\n" * 3000 + "\n".join(rows))
    assert list(filter(None, open_corpus(str(path)).texts())) == ["one"]


def test_other_columns_may_hold_values_that_python_cannot(tmp_path):
    """Dates after the year 9999. Of two columns with the same name, the first is read."""
    dates = pyarrow.array([10**17], type=pyarrow.int64()).cast(pyarrow.timestamp("ms"))
    pyarrow.parquet.write_table(pyarrow.table({"when": dates, "text": ["one"]}), tmp_path / "a.parquet")
    assert list(open_corpus(str(tmp_path / "a.parquet")).texts()) == ["one"]
    (tmp_path / "a.csv").write_text("text,text\none,1\n")
    assert list(open_corpus(str(tmp_path / "a.csv")).texts()) == ["one"]


def test_a_slice_before_damage_is_complete(small_blocks, tmp_path):
    """Only reading the damaged page raises an error."""
    path = tmp_path / "a.parquet"
    texts = [f"text {i} " + "x" * 90 for i in range(600)]
    options = {"use_dictionary": False, "compression": "none", "data_page_size": 1000, "write_batch_size": 10}
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=600, **options)
    content = path.read_bytes()
    place = content.index(b"text 300 ") - 60  # the header of the page
    path.write_bytes(content[:place] + b"\xff" * 60 + content[place + 60 :])
    corpus = open_corpus(str(path))
    assert len(corpus.blocks) > 5
    for last in range(1, 290):
        assert list(corpus.rows(0, last).texts()) == texts[:last]
    with pytest.raises(InputError, match=r"rows 2\d\d to \d+ cannot be read"):
        list(corpus.texts())


def test_a_file_that_is_deleted_later_is_an_error(tmp_path):
    """The missing file is not skipped, and no incomplete result is cached."""
    path = write(tmp_path, some_texts(size=50), "txt")
    corpus = open_corpus(str(path), on_error="skip")
    path.rename(tmp_path / "elsewhere.txt")
    with pytest.raises(RunFailed, match="cannot be read now"):
        prepare(corpus, AsItIs())
    (tmp_path / "elsewhere.txt").rename(path)
    assert len(open_prepared(prepare(corpus, AsItIs()))) == 50


def test_offsets_count_the_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\n\xff\n")
    notes = Notes()
    corpus = open_corpus(str(path), on_error="skip")
    assert list(corpus.read(corpus.blocks[0], notes)) == [["one"]]
    assert [fault.offset for fault in notes.faults] == [7]


def write_bad_json(path: Path) -> tuple[list[str], list[str]]:
    rows = ['{"text": "one"}', '{"text": ', "", '{"text": 3}', '["list"]', '{"text": "\\ud800"}', '{"text": "two"}']
    path.write_text("\n".join(rows))
    return ["one", "", "two"], ["line 2 is no JSON", "line 4 holds", "line 5 is no JSON obj", "line 6 has half"]


def write_bad_csv(path: Path) -> tuple[list[str], list[str]]:
    path.write_bytes(b'id,text\n1,one\n2\n3,"two\nlines"\n4,\xff\n5,"a\n\xff,"\n6,end\n\n7,"not closed\n8,more\n')
    faults = ["a row has 1 fields and none for 'text', at byte 14", "a line is not UTF-8 (byte 0xff at column 3)"]
    return ["one", "two\nlines", "end"], [
        *faults,
        "at byte 30",
        "at byte 39",
        "a quote that is not closed, at byte 50",
    ]


def write_bad_parquet(path: Path) -> tuple[list[str], list[str]]:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one"] * 50 + ["two"] * 50}), path, row_group_size=50)
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    start, size = column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    return ["two"] * 50, ["rows 1 to 50 cannot be read"]


@pytest.mark.parametrize(
    ("suffix", "write_bad", "num_faults"),
    [("jsonl", write_bad_json, 4), ("csv", write_bad_csv, 4), ("parquet", write_bad_parquet, 1)],
)
def test_bad_rows_of_tables_are_named(tmp_path, suffix, write_bad, num_faults):
    path = tmp_path / f"a.{suffix}"
    good, whats = write_bad(path)
    corpus, notes = open_corpus(str(path), on_error="skip", text_column="text"), Notes()
    assert read_all(corpus, notes) == good
    assert len(notes.faults) == len({*notes.faults}) == num_faults
    assert all(any(what in str(fault) for fault in notes.faults) for what in whats)
    assert all(str(path) in str(fault) for fault in notes.faults)
    with pytest.raises(InputError) as raised:
        list(open_corpus(str(path), text_column="text").texts())
    assert any(what in str(raised.value) for what in whats)
    if suffix == "parquet":
        return  # of each part those rows of the group are named that are in it
    again = Notes()
    for part in corpus.hold_out(0.5):
        for block in part.divided(4).blocks:
            list(part.read(block, again))
    assert again.faults == notes.faults


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_every_file_must_have_the_column(tmp_path, suffix):
    """The error is raised before the first file is read."""
    texts = ["one", "two"]
    tables = {"a": {"text": texts}, "b": {"other": texts}, "c": {"text": texts}, "d": {"text": [[1], [2]]}}
    for name, columns in tables.items():
        path = tmp_path / f"{name}.{suffix}"
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        if suffix == "parquet":
            pyarrow.parquet.write_table(pyarrow.table(columns), path)
        elif suffix == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            with open(path, "w", newline="") as file:
                csv.writer(file).writerows([list(columns), *(row.values() for row in rows)])
    with pytest.raises(InputError, match=r"b\.\w+: has no column 'text', found other, at byte 0; or leave out"):
        open_corpus(str(tmp_path))
    corpus = open_corpus(str(tmp_path), on_error="skip")
    if suffix == "csv":  # all of it is text
        assert list(corpus.texts()) == texts + texts + ["[1]", "[2]"]
    else:
        assert list(corpus.texts()) == texts + texts
        assert "d." in corpus.faults[1].file
        assert "the column 'text' holds list" in corpus.faults[1].what


def test_parquet_strings_that_are_not_utf_8(tmp_path):
    values = [b"one", b"\xff", None, "señor".encode()]
    array = pyarrow.array(values, type=pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), tmp_path / "a.parquet")
    corpus, notes = open_corpus(str(tmp_path), on_error="skip"), Notes()
    assert list(corpus.read(corpus.blocks[0], notes)) == [["one", "", "señor"]]
    assert ["row 2" in fault.what for fault in notes.faults] == [True]
    with pytest.raises(InputError, match=r"row 2, .* is not UTF-8"):
        list(open_corpus(str(tmp_path)).texts())


def test_json_arrays(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf [{"text": "one"}, 3, {"text": ["two"]}, {"text": "\\ud800"}, {}, {"text": "end"}]')
    corpus, notes = open_corpus(str(path), on_error="skip"), Notes()
    assert list(corpus.read(corpus.blocks[0], notes)) == [["one", "", "end"]]
    assert [fault.what.split(" of")[0] for fault in notes.faults] == ["object 2", "object 3", "object 4"]
    for content, what in (("[]", "no row"), ("[3", "cannot be read"), ('[{"text": "x"}, ' * 9999, "cannot be read")):
        path.write_text(content)
        with pytest.raises(InputError, match=what):
            open_corpus(str(path))
    monkeypatch.setattr(json_rows, "BYTES_OF_ARRAY", 100)
    path.write_text(json.dumps([{"text": "word " * 100}]))
    with pytest.raises(InputError, match=r"one array of more than 100 bytes.*jq -c '\.\[\]'"):
        open_corpus(str(path))


def test_an_unreadable_file_among_others(tmp_path):
    for name in ("a.txt", "c.txt"):
        (tmp_path / name).write_text(f"line of {name}\n")
    whole = gzip.compress(b"line of b\n" * 10_000)
    (tmp_path / "b.txt.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"b.txt.gz: cannot be read.*at byte 0.*--on_error skip"):
        open_corpus(str(tmp_path))
    corpus = open_corpus(str(tmp_path), on_error="skip")
    assert list(corpus.texts()) == ["line of a.txt", "line of c.txt"]
    assert ["b.txt.gz" in str(fault) for fault in corpus.faults] == [True, False]
    assert "d.txt" in str(corpus.faults[1])


@pytest.mark.parametrize("command", ["tokenizer", "bert", "word2vec"])
def test_on_error_is_a_flag_of_every_command(tmp_path, command, toolkit):
    path, _, places = bad_text(tmp_path)
    with open(path, "a", encoding="utf-8") as file:
        file.write("the old man the boats of the old town\n" * 30)
    name = ["tokenizer"] if command == "tokenizer" else ["pretrain", command]
    flags = {"tokenizer": [], "bert": ["--preset", "bert-tiny", "--max_steps", "2"], "word2vec": []}[command]
    words = [*name, "--corpus", path, "--vocab_size", "60", *flags, "--output_dir", tmp_path / "out"]
    code, printed = toolkit(*words)
    assert code == 2
    assert f"{path}: line 5 has" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()
    code, printed = toolkit(*words, "--on_error", "skip")
    assert code == 0, printed
    for what, offset in places.items():
        assert f"left out {path}: {what}" in printed
        assert f"at byte {offset:,}\n" in printed


def test_the_command_counts_what_is_left_out(tmp_path, toolkit):
    path = tmp_path / "a.txt"
    path.write_text(
        "the old man the boats of the town\n" * 20 + "a b\n" + "another line with words\n", encoding="utf-8"
    )
    flags = ["--deduplicate", "exact", "--min_words", "3", "--vocab_size", "40"]
    code, printed = toolkit("tokenizer", "--corpus", path, *flags, "--output_dir", tmp_path / "out")
    assert code == 0, printed
    assert "left out, like an earlier one: 19 rows" in printed
    assert "left out, fewer than 3 words: 1 rows" in printed


# The Hub


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "parquet"])
def test_hub_data_is_streamed(hub, tmp_path, suffix, toolkit):
    texts = some_texts()
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", texts, suffix).rename(tmp_path / "data" / f"train.{suffix}")
    name = f"me/streamed-{suffix}"
    assert hub.run("push", tmp_path / "data", name, "--repo_type", "dataset").returncode == 0
    flags = ["--vocab_size", "60", "--output_dir"]
    done = hub.run("tokenizer", "--corpus", name, *flags, tmp_path / "by_name")
    assert done.returncode == 0, done.stderr
    code, printed = toolkit("tokenizer", "--corpus", tmp_path / "data", *flags, tmp_path / "by_folder")
    assert code == 0, printed
    made = [(tmp_path / run / "tokenizer.json").read_text() for run in ("by_name", "by_folder")]
    assert made[0] == made[1]
    copies = [path for path in Path(hub.environment["HF_HOME"]).rglob("*") if path.is_file()]
    content = next((tmp_path / "data").iterdir()).read_bytes()
    assert not any(content[:1000] in path.read_bytes() for path in copies)


def test_a_failing_hub_is_an_error_even_with_on_error_skip(hub, tmp_path):
    """Its rows are not skipped."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", some_texts(size=50), "jsonl").rename(tmp_path / "data" / "train.jsonl")
    assert hub.run("push", tmp_path / "data", "me/failing", "--repo_type", "dataset").returncode == 0
    words = ["tokenizer", "--corpus", "me/failing", "--vocab_size", "60", "--on_error", "skip"]
    hub.spoil("expired", match="resolve.*jsonl")
    done = hub.run(*words, "--output_dir", tmp_path / "out")
    hub.spoil()
    assert done.returncode == 1, done.stderr
    assert "cannot be read now" in done.stderr
    assert "repeat the command" in done.stderr
    assert "Traceback" not in done.stderr
    done = hub.run(*words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_load_text_gives_a_data_set(tmp_path):
    texts = some_texts(size=50)
    rows = load_text(str(write(tmp_path, texts, "csv")))
    assert rows["text"][:] == texts
