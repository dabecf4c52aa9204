"""The edges of predict: paths that do not exist, bad bytes, empty input, one broken item among many."""

import io
import os
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY, run_toolkit
from in_process import error_of, run_here
from PIL import Image

from tasks import finetune

pytestmark = pytest.mark.slow  # half a minute


@pytest.fixture(scope="module")
def reviews(encoders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    lines = [f"{word} film {n},{label}\n" for n in range(20) for word, label in (("good", "pos"), ("bad", "neg"))]
    (folder / "data.csv").write_text("text,label\n" + "".join(lines))
    finetune(
        "text",
        encoder=str(encoders["word2vec"]),
        data=str(folder / "data.csv"),
        output_dir=str(folder / "out"),
        max_steps=5,
    )
    return folder / "out"


@pytest.mark.parametrize(
    "word", ["reviwes_2026.csv", "no/such/file.txt", "./reviews", "~/no/reviews", "/no", "x.jsonl.gz"]
)
def test_a_word_that_can_only_be_a_path_is_no_text(reviews, word):
    message = error_of(run_here("predict", reviews, "good film", word))
    assert f"{os.path.expanduser(word)}: no such file or folder" in message


@pytest.mark.parametrize("text", ["good", "and/or", "it ends in notes.txt", "... good", "a.b", "see reviews.csv now"])
def test_a_text_is_a_text(reviews, text):
    done = run_here("predict", reviews, text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n").split("\t")[2] == text


def test_a_path_may_begin_with_the_home_folder(reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "texts.txt").write_text("good film\nbad film\n")
    assert run_here("predict", reviews, "~/texts.txt").stdout.count("\n") == 2


def test_the_home_folder_in_flags(encoders, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(encoders["word2vec"], tmp_path / "encoder")
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(20)))
    for encoder, out in (("~/encoder", "out"), ("scratch:~/encoder", "scratch")):
        flags = ["--encoder", encoder, "--data", "~/data.csv", "--output_dir", f"~/{out}", "--max_steps", "1"]
        done = run_here("finetune", "text", *flags)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / out / "results.json").is_file()


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}]
)
def test_every_character_is_written_whatever_the_locale(reviews, locale):
    command = [sys.executable, "-m", "toolkit", "predict", str(reviews), "日本 film 🙂"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **locale}, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode("utf-8").rstrip().endswith("日本 film 🙂")


@pytest.mark.parametrize(
    ("word", "message"),
    [(b"se\xf1or film", "is not UTF-8 (byte 0xf1 at column 3)"), (b"\xff.csv", "\\udcff.csv: no such file or folder")],
)
def test_bad_bytes_of_a_word_are_named(reviews, word, message):
    command = [sys.executable, "-m", "toolkit", "predict", str(reviews), word]
    assert message in error_of(subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY))


def test_closed_standard_input_is_an_error(reviews):
    command = ["sh", "-c", '"$@" <&-', "sh", sys.executable, "-m", "toolkit", "predict", str(reviews)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert "nothing to label" in error_of(done)


def test_bad_bytes_on_standard_input_are_named(reviews, tmp_path):
    (tmp_path / "in").write_bytes("good film\nseñor\n".encode("latin-1"))
    done = run_toolkit("predict", str(reviews), stdin="x")  # the usual way still works
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "in", "rb") as file:
        command = [sys.executable, "-m", "toolkit", "predict", str(reviews)]
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, cwd=REPOSITORY)
    assert "standard input: line 2 is not UTF-8 (byte 0xf1 at column 3)" in error_of(done)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfgood film\r\nbad film\r\n", b"good film\nbad film"])
def test_marks_and_line_ends_are_no_text(reviews, tmp_path, content):
    (tmp_path / "texts.txt").write_bytes(content)
    lines = run_here("predict", reviews, tmp_path / "texts.txt").stdout.splitlines()
    assert [line.split("\t")[2] for line in lines] == ["good film", "bad film"]


def test_empty_input_is_an_error(reviews, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "there is no text to classify" in error_of(run_here("predict", reviews, tmp_path / "empty.txt"))
    assert "there is no text to classify" in error_of(run_here("predict", reviews, stdin="\n"))


def test_a_folder_is_no_text(reviews, tmp_path):
    assert f"{tmp_path}: this is a folder, expected a file" in error_of(run_here("predict", reviews, tmp_path))


def test_rows_without_text_are_counted(reviews, taggers, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "good film"}\n{"text": null}\n{"text": " "}\n{"text": "bad film"}\n')
    done = run_here("predict", reviews, rows)
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == ["good film", "bad film"]
    assert f"left out of {rows}, no text: 2 of 4 rows" in done.stderr
    rows.write_text('{"tokens": ["good", "film"]}\n{"tokens": []}\n')
    done = run_here("predict", taggers["word2vec"], rows)
    assert done.stdout.count("\n\n") == 1
    assert f"left out of {rows}, no words: 1 of 2 rows" in done.stderr


def test_one_broken_image_among_many(tmp_path):
    for split in ("train", "test"):
        for n in range(8):
            for label, color in (("dark", n), ("light", 255 - n)):
                path = tmp_path / "data" / split / label / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), color).save(path)
    flags = ["--encoder", "scratch:resnet-tiny", "--image_size", "16", "--max_steps", "2", "--data", tmp_path / "data"]
    assert run_here("finetune", "image", *flags, "--output_dir", tmp_path / "out").returncode == 0
    shutil.copytree(tmp_path / "data" / "test" / "dark", tmp_path / "photos")
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(whole, "PNG")
    (tmp_path / "photos" / "3.png").write_bytes(whole.getvalue()[:900])
    assert "3.png: this image cannot be decoded" in error_of(
        run_here("predict", tmp_path / "out", tmp_path / "photos")
    )
    done = run_here("predict", tmp_path / "out", tmp_path / "photos", "--skip_broken")
    assert done.returncode == 0, done.stderr
    names = [line.split("\t")[2].rpartition("/")[2] for line in done.stdout.splitlines()]
    assert names == [f"{n}.png" for n in range(8) if n != 3]
    assert "left out: " in done.stderr
    assert "3.png: this image cannot be decoded" in done.stderr


def test_one_broken_row_among_many(reviews, tmp_path):
    rows = [b"text\n", *(f"good film {n}\n".encode() for n in range(1000))]
    rows[500] = b"se\xf1or\n"
    (tmp_path / "more.csv").write_bytes(b"".join(rows))
    assert "more.csv: a line is not UTF-8 (byte 0xf1 at column 3)" in error_of(
        run_here("predict", reviews, tmp_path / "more.csv")
    )
    done = run_here("predict", reviews, tmp_path / "more.csv", "--skip_broken")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 999
