"""Which files are data, and of which split: what is set aside is never trained on, and nothing is lost in silence."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from in_process import error_of, run_here
from PIL import Image

from toolkit.corpora.text import load_text
from toolkit.data.image_files import IMAGES
from toolkit.data.labelled_text import load_labelled_text, open_labelled_text
from toolkit.data.sources import find_files, find_splits
from toolkit.data.splits import SPLIT_NAMES, find_data, splits_by_name
from toolkit.errors import InputError

TEXT = {".txt"}


def touch(root: Path, *names: str) -> Path:
    """Write files, each holding its own name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def draw(root: Path, *names: str) -> Path:
    """Write an image for each name; its colour is a hash of the name."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 7 % 256, len(name), 0)).save(root / name)
    return root


def found(root: Path, kinds=TEXT) -> dict[str, list[str]]:
    splits = find_data(root, kinds).splits
    return {split: [file.relative_to(root).as_posix() for file in files] for split, files in splits.items()}


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        (["train", "val", "test"], {"train": "train", "val": "validation", "test": "test"}),
        (["Training", "Testing"], {"Training": "train", "Testing": "test"}),
        (["TRAIN", "Eval", "dev"], {"TRAIN": "train", "Eval": "validation", "dev": "validation"}),
        (["train2017", "val2017"], {"train2017": "train", "val2017": "validation"}),
        (["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"], None),
        (["en_ewt-ud-train", "en_ewt-ud-dev", "en_ewt-ud-test"], None),
        (["seg_train", "seg_test", "seg_pred"], {"seg_train": "train", "seg_test": "test"}),
        (["boat", "car", "plane", "train", "tram"], {"train": "train"}),
        (["essay1", "essay2", "litmus test"], {}),
        (["dev_diary", "letters", "novel"], {}),
        (["contest", "trains", "developer", "latest"], {}),
        (["train_and_test", "notes"], {}),
        (["train-clean", "train-clean", "test-other"], None),
        (["train", "test", "test_labels", "sample_submission"], {"train": "train", "test": "test"}),
        ([], {}),
    ],
)
def test_names_of_splits(beside, expected):
    splits = splits_by_name(beside)
    if expected is None:
        assert set(splits) == set(beside)
        assert all(any(word in name for word in SPLIT_NAMES[split]) for name, split in splits.items())
    else:
        assert splits == expected


def test_a_name_with_and_without_a_split_cannot_be_told(tmp_path):
    with pytest.raises(InputError, match=r"reviews: is it for training\? There is reviews_test beside it"):
        found(touch(tmp_path, "reviews.txt", "reviews_test.txt"))


def test_most_names_with_splits_that_are_not_alike_cannot_be_told(tmp_path):
    with pytest.raises(InputError, match=r"notes: of which split is it\? There are test-other and train-clean"):
        found(touch(tmp_path, "train-clean.txt", "test-other.txt", "notes.txt"))
    titles = ["A Train to Nowhere.txt", "Emma.txt", "Hard Times.txt", "The Test of Time.txt"]
    assert found(touch(tmp_path / "titles", *titles)) == {"train": titles}


def test_a_file_is_read_once_beside_its_compressed_copy(tmp_path):
    touch(tmp_path, "train.txt", "train.txt.gz", "test.txt.gz")
    assert found(tmp_path) == {"train": ["train.txt"], "test": ["test.txt.gz"]}
    assert find_data(tmp_path, TEXT).left_out == {"compressed copies": [tmp_path / "train.txt.gz"]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train/a.txt", "val/b.txt", "Testing/c.txt"], {"train": ["train/a.txt"], "validation": ["val/b.txt"]}),
        (["top/train/a.txt", "top/dev/b.txt"], {"train": ["top/train/a.txt"], "validation": ["top/dev/b.txt"]}),
        (["Testing/Training/x/a.txt", "Testing/Testing/x/b.txt"], {"train": ["Testing/Training/x/a.txt"]}),
        (["train/test/a.txt", "train/dev.txt"], {"train": ["train/dev.txt", "train/test/a.txt"]}),
        (["en/train.txt", "de/train.txt", "de/test.txt"], {"train": ["de/train.txt", "en/train.txt"]}),
        (["a.txt", "b/c.txt"], {"train": ["a.txt", "b/c.txt"]}),
        (["train.txt", "boat.txt"], {"train": ["train.txt"]}),
    ],
)
def test_folders_and_files_of_splits(tmp_path, names, expected):
    splits = found(touch(tmp_path, *names))
    assert {split: splits.get(split) for split in expected} == expected
    assert Counter(file for files in splits.values() for file in files).most_common(1)[0][1] == 1
    left_out = {
        str(file.relative_to(tmp_path)) for files in find_data(tmp_path, TEXT).left_out.values() for file in files
    }
    assert {file for files in splits.values() for file in files} | left_out == set(names)


def test_a_folder_beside_splits_is_refused(tmp_path):
    touch(tmp_path, "train/a.txt", "test/b.txt", "extra/c.txt")
    with pytest.raises(InputError, match=r"extra: a folder beside test and train, whose name is that of no split"):
        find_data(tmp_path, TEXT)
    touch(tmp_path / "empty", "train/a.txt", "notes/readme.md")
    assert set(found(tmp_path / "empty")) == {"train"}


def test_what_is_no_data(tmp_path):
    touch(tmp_path, "a.txt", ".ipynb_checkpoints/a-checkpoint.txt", "__MACOSX/._a.txt", "._b.txt", "c.md")
    touch(tmp_path, "run/.toolkit-run", "run/log.txt")
    os.symlink(tmp_path / "a.txt", tmp_path / "same.txt")
    os.symlink(tmp_path, tmp_path / "loop")
    data = find_data(tmp_path, TEXT)
    assert [file.name for file in data.splits["train"]] == ["a.txt"]
    left_out = {reason: sorted(file.name for file in files) for reason, files in data.left_out.items()}
    assert left_out == {
        "hidden": ["._b.txt", ".ipynb_checkpoints"],
        "of the operating system": ["__MACOSX"],
        "of a run of this toolkit": ["run"],
        "of another format": ["c.md"],
        "the same as another file": ["same.txt"],
    }
    with pytest.raises(InputError, match="run: this is the output folder of a run"):
        find_files(str(tmp_path / "run"), TEXT, None)


def test_files_beside_a_split_are_said_to_be_left_out(tmp_path):
    """`train.txt` among texts about vehicles: pretraining reads it alone, and says so."""
    beside = touch(tmp_path / "vehicles", "boat.txt", "car.txt", "plane.txt", "train.txt", "tram.txt")
    (beside / "train.txt").write_text("a train runs on rails\n" * 40)
    flags = ["--preset", "word2vec-tiny", "--num_train_epochs", "1", "--workers", "1"]
    done = run_here("pretrain", "word2vec", "--corpus", beside, *flags, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"left out of {beside}, beside the splits: boat.txt, car.txt, plane.txt and 1 more" in done.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())["data"]
    assert record["left_out"]["beside the splits"]["number"] == 4
    assert record["train"]["files"] == 1


@pytest.mark.parametrize("names", [("essay1", "essay2", "litmus test"), ("dev_diary", "letters", "novel")])
def test_a_word_of_a_split_inside_a_name_is_part_of_it(tmp_path, names):
    for name in names:
        (tmp_path / f"{name}.txt").write_text(f"of {name}\n")
    assert load_text(str(tmp_path))["text"][:] == [f"of {name}" for name in sorted(names)]


def test_copies_in_hidden_folders_are_no_rows(tmp_path):
    """Jupyter copies files to `.ipynb_checkpoints`, macOS to `__MACOSX`: no label, and no row twice."""
    for copies in (".ipynb_checkpoints", "__MACOSX/bar"):
        touch(tmp_path / "texts", "bar/0.txt", "disc/1.txt", f"bar/{copies}/0.txt", f"{copies}/1.txt")
        draw(tmp_path / "images", "bar/0.png", "disc/1.png", f"bar/{copies}/0.png", f"{copies}/1.png")
        touch(tmp_path / "images", f"{copies}/._0.png", "bar/.DS_Store", "bar/Thumbs.db")
        for split in ("train", "dev"):
            for name in (f"{split}.csv", f"{copies}/{split}-checkpoint.csv"):
                (tmp_path / "tables" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "tables" / name).write_text(f"text,label\n{split} one,bar\n{split} two,disc\n")
    assert load_labelled_text(str(tmp_path / "texts"))["label"][:] == ["bar", "disc"]
    assert IMAGES.load_labelled(str(tmp_path / "images"))["label"][:] == ["bar", "disc"]
    assert load_labelled_text(str(tmp_path / "tables"))["text"][:] == ["train one", "train two"]


def test_folders_that_are_links_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/a.txt", "data/test/b.txt")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "train")
    assert found(tmp_path / "data") == {"train": ["train/a.txt"], "test": ["test/b.txt"]}
    os.symlink(tmp_path / "elsewhere" / "a.txt", tmp_path / "data" / "test" / "c.txt")
    with pytest.raises(InputError, match=r"is the same file as .*, in another split"):
        find_data(tmp_path / "data", TEXT)


def test_every_name_of_a_split_can_be_asked_for(tmp_path):
    touch(tmp_path, "train.txt", "valid.txt", "dev2/x.md")
    for name in ("val", "dev", "validation", "Eval"):
        assert [file.name for file in find_files(str(tmp_path), TEXT, name)] == ["valid.txt"]
    assert list(find_splits(str(tmp_path), TEXT).splits) == ["train", "validation"]


# Class folders


@pytest.mark.parametrize(
    "layout",
    [
        "{split}/{label}/{n}.png",
        "top/{split}/{label}/{n}.png",
        "{label}/{split}/{n}.png",
        "seg_{split}/a/{label}/{n}.png",
    ],
)
@pytest.mark.parametrize(
    "names", [("train", "val"), ("Training", "eval"), ("train", "dev"), ("training", "validation")]
)
def test_class_folders_of_splits(tmp_path, layout, names):
    for split in names:
        draw(tmp_path, *(layout.format(split=split, label=label, n=n) for label in ("bar", "disc") for n in range(3)))
    for split, name in zip(("train", "validation"), names, strict=True):
        rows = IMAGES.load_labelled(str(tmp_path), split)
        assert Counter(rows["label"]) == {"bar": 3, "disc": 3}
        assert all(name in Path(file).relative_to(tmp_path).as_posix() for file in rows["name"])


def test_images_straight_in_the_folder_of_a_split_have_no_label(tmp_path):
    draw(tmp_path, "train/0.png", "train/1.png", "test/2.png")
    with pytest.raises(InputError, match=r"0\.png: this image has no label"):
        IMAGES.load_labelled(str(tmp_path))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("place", ["beside the images", "above the splits"])
def test_metadata_names_the_labels(tmp_path, suffix, place):
    import datasets

    draw(tmp_path, "train/0.png", "train/1.png", "train/x/2.png", "test/3.png", "test/unlisted.png")
    labels = {"train/0.png": "bar", "train/1.png": "disc", "train/x/2.png": "bar", "test/3.png": "disc"}
    splits = {"": ""} if place == "above the splits" else {"train/": "train", "test/": "test"}
    for prefix, folder in splits.items():
        listed = {name.removeprefix(prefix): label for name, label in labels.items() if name.startswith(prefix)}
        rows = datasets.Dataset.from_dict({"file_name": list(listed), "label": list(listed.values())})
        write = {"csv": rows.to_csv, "jsonl": rows.to_json, "parquet": rows.to_parquet}[suffix]
        write(tmp_path / folder / f"metadata.{suffix}")
    for split in ("train", "test"):
        rows = IMAGES.load_labelled(str(tmp_path), split)
        read = {
            Path(name).relative_to(tmp_path).as_posix(): label
            for name, label in zip(rows["name"], rows["label"], strict=True)
        }
        assert read == {name: label for name, label in labels.items() if name.startswith(split)}


def test_metadata_that_names_no_file_is_refused(tmp_path):
    draw(tmp_path, "train/0.png")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n0.png,a\n1.png,b\n")
    with pytest.raises(InputError, match=r"metadata\.csv: row 2 names 1\.png, and there is no such file"):
        IMAGES.load_labelled(str(tmp_path))


def test_labels_on_two_levels_are_refused(tmp_path):
    draw(tmp_path, "cells/sick/0.png", "cells/well/1.png", "cells/cells/sick/0.png", "cells/cells/well/1.png")
    with pytest.raises(InputError, match="are folders of labels on different levels"):
        IMAGES.load_labelled(str(tmp_path))


def test_a_table_is_no_class_folder(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\ngood,pos\nbad,neg\n")
    touch(tmp_path, "notes/readme.txt")
    assert load_labelled_text(str(tmp_path))["label"][:] == ["pos", "neg"]


# What is said


def test_each_split_and_what_was_left_out_is_said_and_recorded(tmp_path):
    names = [f"{label}/{n}.png" for label in ("bar", "disc") for n in range(6)]
    draw(tmp_path, *(f"data/{split}/{name}" for split in ("train", "val") for name in names), "data/train/stray.png")
    draw(tmp_path, "data/.cache/0.png")
    flags = ["--encoder", "scratch:resnet-tiny", "--image_size", "16", "--max_steps", "1", "--train_size", "10"]
    done = run_here("finetune", "image", *flags, "--data", tmp_path / "data", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())["data"]
    assert record["train"]["rows"] == sum(record["train"]["labels"].values()) == 10
    assert record["validation"].pop("content")
    assert record["validation"] == {"rows": 12, "files": 12, "labels": {"bar": 6, "disc": 6}}
    assert f"validation: 12 examples in 12 files of {tmp_path / 'data'}; 2 labels: bar 6, disc 6" in done.stderr
    assert record["left_out"]["in no folder of a label"]["number"] == 1
    assert f"left out of {tmp_path / 'data'}, hidden: .cache" in done.stderr
    assert "in no folder of a label: train/stray.png" in done.stderr


def test_a_run_inside_the_data_is_no_data(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(40)))
    flags = ["--encoder", "scratch:bert-tiny", "--data", tmp_path, "--max_steps", "1"]
    for name in ("run1", "run2"):
        done = run_here("finetune", "text", *flags, "--output_dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert "of a run of this toolkit: run1" in done.stderr


def test_a_split_that_is_not_there_is_named(tmp_path):
    touch(tmp_path, "test.txt")
    done = run_here("pretrain", "word2vec", "--corpus", tmp_path, "--output_dir", tmp_path / "out")
    assert "no split 'train' in it, found test" in error_of(done)


def test_a_pattern_has_splits_too(tmp_path):
    """`data/*.csv` names the files for testing as well, which are not for training."""
    for split, number in (("train", 6), ("dev", 3), ("test", 2)):
        lines = "".join(f"{split} {n},{n % 2}\n" for n in range(number))
        (tmp_path / f"{split}.csv").write_text("text,label\n" + lines)
    opened = open_labelled_text(str(tmp_path / "*.csv"))
    assert {split: len(opened.load(split)) for split in opened.splits} == {"train": 6, "validation": 3, "test": 2}
    assert len(open_labelled_text(str(tmp_path / "t*.csv")).load(None)) == 6
    assert len(load_text(str(tmp_path / "*.csv"))) == 6
    of_one = open_labelled_text(str(tmp_path / "te*.csv"))
    assert (of_one.splits, len(of_one.load(None))) == ((), 2)


def test_folders_in_a_pattern_name_splits(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.txt").write_text(f"{split}\n")
    assert load_text(str(tmp_path / "*" / "*.txt"))["text"][:] == ["train"]


@pytest.mark.parametrize("kind", ["texts", "images"])
def test_test_examples_that_are_trained_on_are_counted(tmp_path, kind):
    if kind == "texts":
        (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\nc,x\n")
        (tmp_path / "test.csv").write_text("text,label\nb,x\nd,y\n")
        opened = open_labelled_text(str(tmp_path))
    else:
        colors = {"train": {"x": "red", "y": "blue"}, "test": {"x": "blue", "y": "lime"}}
        for split, of_label in colors.items():
            for label, color in of_label.items():
                (tmp_path / split / label).mkdir(parents=True)
                Image.new("RGB", (8, 8), color).save(tmp_path / split / label / "0.bmp")
        opened = IMAGES.open_labelled(str(tmp_path))
    assert opened.num_repeated("test") == 1
    assert opened.num_repeated("train") == 0
    done = run_here("doctor", "--data", tmp_path, "--task", "text" if kind == "texts" else "image")
    assert "test: 2 examples in" in done.stdout
    assert "1 of them also in train" in done.stdout
