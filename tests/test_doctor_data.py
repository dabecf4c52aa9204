"""`toolkit doctor --data` says how a source would be read, and changes nothing."""

import os
from collections import Counter
from pathlib import Path

import pytest
from in_process import error_of, run_here
from PIL import Image

WORDS = {
    "train.csv": ["good,pos", "bad,neg", "fine,pos", "NA,NA"],
    "dev.csv": ["nice,pos"],
    "test.csv": ["01,neg", "poor,neg"],
}


def write_reviews(folder: Path) -> Path:
    for name, rows in WORDS.items():
        (folder / name).write_text("\n".join(["text,label", *rows]) + "\n")
    (folder / "extra.csv").write_text("text,label\nset aside,pos\n")
    (folder / "notes.md").write_text("about the reviews")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "train-checkpoint.csv").write_text("text,label\ncopied,pos\n")
    return folder


def listing(folder: Path) -> dict[str, tuple]:
    """Every file and folder, with its size, time of modification and content."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.stat()
        content = path.read_bytes() if path.is_file() else sorted(os.listdir(path))
        found[str(path)] = (status.st_size, status.st_mtime_ns, status.st_mode, content)
    return found


def parts(output: str) -> dict[str, list[str]]:
    """What is said of each reader: the lines below its name."""
    found: dict[str, list[str]] = {}
    reader = ""
    for line in output.splitlines():
        if line.startswith("  "):
            found[reader].append(line.strip())
        else:
            reader, _, rest = line.partition(":")
            found[reader] = [rest.strip()] if rest else []
    return found


def test_splits_labels_rows_and_left_out_files_are_said(tmp_path):
    folder = write_reviews(tmp_path)
    before = listing(folder)
    done = run_here("doctor", "--data", folder, "--task", "text")
    assert done.returncode == 0, done.stderr
    assert listing(folder) == before
    ((reader, lines),) = parts(done.stdout).items()
    assert reader == "toolkit finetune text"
    for name, rows in WORDS.items():
        split = {"dev.csv": "validation"}.get(name, name.removesuffix(".csv"))
        labels = Counter(row.split(",")[1] for row in rows).most_common()
        shown = ", ".join(f"{label} {count}" for label, count in labels)
        assert f"{split}: {len(rows)} examples in 1 files of {folder}; {len(labels)} labels: {shown}" in lines
        first = [
            f"{split}, row {number}: {text!r}: {label!r}"
            for number, (text, label) in enumerate((row.split(",") for row in rows[:3]), start=1)
        ]
        assert [line for line in lines if line.startswith(f"{split}, row ")] == first
    assert "labels that only train has: NA" in lines
    assert {line for line in lines if line.startswith("left out")} == {
        f"left out of {folder}, beside the splits: extra.csv",
        f"left out of {folder}, of another format: notes.md",
        f"left out of {folder}, hidden: .ipynb_checkpoints",
    }


def test_without_a_task_every_reader_says_what_it_makes_of_a_source(tmp_path):
    for split, numbers in (("Training", range(3)), ("val", range(2))):
        for label in ("bar", "disc"):
            for number in numbers:
                path = tmp_path / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (4, 4), 60 * number + len(split)).save(path)
    (tmp_path / "val" / "stray.png").write_bytes(path.read_bytes())
    before = listing(tmp_path)
    done = run_here("doctor", "--data", tmp_path)
    assert done.returncode == 0, done.stderr
    assert listing(tmp_path) == before
    said = parts(done.stdout)
    for reader in ("toolkit finetune text", "toolkit finetune pos", "pretraining on text"):
        assert said[reader][0].startswith(f"cannot read it ({tmp_path}: no data in this folder")
    lines = said["toolkit finetune image"]
    assert f"train: 6 examples in 6 files of {tmp_path}; 2 labels: bar 3, disc 3" in lines
    assert f"validation: 4 examples in 4 files of {tmp_path}; 2 labels: bar 2, disc 2" in lines
    assert f"left out of {tmp_path}, in no folder of a label: val/stray.png" in lines
    assert f"train, row 1: '{tmp_path}/Training/bar/0.png': 'bar'" in lines


def test_a_treebank_and_a_single_file_are_described(tmp_path):
    file = tmp_path / "en.conllu"
    file.write_text("1\tdogs\tdog\tNOUN\t_\t_\t2\tnsubj\t_\t_\n2\tbark\tbark\tVERB\t_\t_\t0\troot\t_\t_\n\n" * 5)
    done = run_here("doctor", "--data", file, "--task", "pos")
    assert done.returncode == 0, done.stderr
    lines = parts(done.stdout)["toolkit finetune pos"]
    assert lines[0] == f"train: 5 examples of {file}; 2 labels: NOUN 5, VERB 5"
    of_rows = [line for line in lines if line.startswith("train, row ")]
    assert of_rows == [rf"train, row {number}: 'dogs\tbark': ['NOUN', 'VERB']" for number in (1, 2, 3)]


@pytest.mark.parametrize("task", [[], ["--task", "text"]])
@pytest.mark.parametrize("source", ["only notes", "a run", "nowhere.csv", "binary.csv", "beside"])
def test_a_source_that_nothing_can_read_is_one_line(tmp_path, source, task):
    files = "only notes/readme.md", "a run/.toolkit-run", "a run/train.csv", "beside/train/a.csv", "beside/more/b.csv"
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text,label\na,b\n")
    (tmp_path / "binary.csv").write_bytes(b"\0\1\2")
    done = run_here("doctor", "--data", tmp_path / source, *task)
    assert str(tmp_path / source) in error_of(done)
    assert not done.stdout


def test_a_task_is_one_that_there_is(tmp_path):
    assert "--task parsing: expected one of" in error_of(run_here("doctor", "--data", tmp_path, "--task", "parsing"))
    assert "--task text: goes with --data" in error_of(run_here("doctor", "--task", "text"))
