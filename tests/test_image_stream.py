"""Streamed images: each once per epoch, the same after a stop and in two processes, without copies."""

import io
import json
import random
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
import torch
from conftest import REPOSITORY
from forks import run_forked
from in_process import run_here
from PIL import Image
from safetensors.torch import load_file
from test_faults import kill
from test_training import losses

from toolkit.data.image_stream import ImageStream, files_of_stream
from toolkit.errors import InputError

LABELS = ("cat", "dog", "owl")
NUM_FILES, IMAGES_A_FILE = 4, 15


def some_images(size: int = 8) -> list[tuple[bytes, str]]:
    """Images of one colour each, which identifies them; red is the label."""
    rng, images = random.Random(0), []
    for number in range(NUM_FILES * IMAGES_A_FILE):
        label = rng.randrange(len(LABELS))
        file = io.BytesIO()
        Image.new("RGB", (size, size), (100 * label, number, rng.randrange(256))).save(file, "PNG")
        images.append((file.getvalue(), LABELS[label]))
    return images


def write_parquet(folder: Path, images: list[tuple[bytes, str]]) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(LABELS))})
    columns = {
        "image": [{"bytes": image, "path": None} for image, _ in images],
        "label": [label for _, label in images],
    }
    rows = datasets.Dataset.from_dict(columns, features=features)
    for number in range(NUM_FILES):
        rows.shard(NUM_FILES, number, contiguous=True).to_parquet(folder / f"part-{number}.parquet")


def write_tars(folder: Path, images: list[tuple[bytes, str]]) -> None:
    for number in range(NUM_FILES):
        with tarfile.open(folder / f"{number:04d}.tar", "w") as tar:
            for place in range(number * IMAGES_A_FILE, (number + 1) * IMAGES_A_FILE):
                image, label = images[place]
                for suffix, content in (("png", image), ("cls", str(LABELS.index(label)).encode())):
                    info = tarfile.TarInfo(f"{place:06d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("images")
    for kind, write in (("parquet", write_parquet), ("webdataset", write_tars)):
        (root / kind).mkdir()
        write(root / kind, some_images())
    return {kind: root / kind for kind in ("parquet", "webdataset")}


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_every_image_comes_once_per_epoch_in_a_new_order(folders, kind, monkeypatch):
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # for programs that end meanwhile
    images = dict(some_images())
    stream = ImageStream(files_of_stream(str(folders[kind]), None), seed=1, buffer_size=20)
    names = LABELS if kind == "parquet" else ("0", "1", "2")
    assert stream.labels == Counter(names[LABELS.index(label)] for label in images.values())
    assert len(stream) == len(images)
    orders = []
    for epoch in range(2):
        rows = stream.read([(epoch, place) for place in range(len(images))])
        assert {row["image"]["bytes"] for row in rows} == set(images)
        assert all(row["label"] == names[LABELS.index(images[row["image"]["bytes"]])] for row in rows)
        orders.append([row["image"]["bytes"] for row in rows])
    assert orders[0] != orders[1]
    assert orders[0] != list(images)
    # Whoever begins in the middle, or takes every second one, finds the same at the same place.
    other = ImageStream(stream.files, seed=1, buffer_size=20)
    for epoch, place in ((1, 7), (1, 30), (1, 31), (0, 50), (0, 2)):
        assert other.read([(epoch, place)])[0]["image"]["bytes"] == orders[epoch][place]


def test_selected_labels_and_a_limited_number_of_images(folders):
    files = files_of_stream(str(folders["parquet"]), None)
    stream = ImageStream(files, only=["cat", "owl"])
    images = [image for image, label in some_images() if label != "dog"]
    assert len(stream) == len(images)
    assert [row["image"]["bytes"] for row in stream.first(10)] == images[:10]
    with pytest.raises(InputError, match="no column of images"):
        ImageStream(files, image_column="label")
    with pytest.raises(InputError, match="no such column"):
        ImageStream(files, label_column="class")
    with pytest.raises(InputError, match="holds images, not labels"):
        ImageStream(files, label_column="image")


@pytest.mark.parametrize(("kind", "place"), [("webdataset", 0), ("webdataset", 2), ("parquet", 2), ("no label", 2)])
def test_a_damaged_file_is_named(folders, tmp_path, kind, place):
    """The first file, whose columns are read at the start, or a later file, whose damage is found while reading."""
    shutil.copytree(folders["parquet" if kind == "parquet" else "webdataset"], tmp_path / "data")
    damaged = sorted((tmp_path / "data").iterdir())[place]
    content = damaged.read_bytes()
    if kind == "webdataset":
        damaged.write_bytes(content[: 10 * 1024 + 512 + 30])  # within an image
    elif kind == "no label":
        damaged.write_bytes(content[: 11 * 1024])
    else:
        table = pyarrow.parquet.ParquetFile(damaged)
        chunk = table.metadata.row_group(0).column(0)  # the images: labels can still be counted
        start, size = chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size
        damaged.write_bytes(content[:start] + b"\xff" * size + content[start + size :])
    for processes in (0, 2) if kind == "parquet" else (0,):
        words = pretrain(
            tmp_path / "data", tmp_path / "out", "--max_steps", "9", "--dataloader_num_workers", processes
        )
        done = run_here(*words)
        assert done.returncode == 2, done.stderr
        what = "an image has no cls" if kind == "no label" else "cannot be read ("
        assert f"toolkit: error: {damaged}: {what}" in done.stderr
        assert "Traceback" not in done.stderr


def pretrain(folder: Path, out: Path, *flags) -> list:
    words = ["pretrain", "resnet", "--corpus", folder, "--streaming", "--preset", "resnet-tiny", "--image_size", "8"]
    words += ["--shuffle_buffer", "20", "--batch_size", "8", "--logging_steps", "1", "--output_dir", out]
    return [*words, *flags]


@pytest.mark.parametrize("kind", ["webdataset", pytest.param("parquet", marks=pytest.mark.slow)])
def test_resuming_a_stream_equals_never_having_stopped(folders, tmp_path, kind):
    """Over more than one epoch of 45 images, also with loader workers."""
    runs = {"whole": ["--max_steps", "12"], "workers": ["--max_steps", "12", "--dataloader_num_workers", "2"]}
    for name, flags in runs.items():
        done = run_here(*pretrain(folders[kind], tmp_path / name, *flags))
        assert done.returncode == 0, done.stderr
    stopped = pretrain(folders[kind], tmp_path / "stopped", "--max_steps", "12", "--save_steps", "3")
    assert "resuming from" in kill([["after optimizer step", 8]], *stopped).stdout
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "workers", "stopped")]
    assert all(torch.equal(tensor, other[name]) for other in weights[1:] for name, tensor in weights[0].items())
    record = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert record["n"] == 15


@pytest.mark.parametrize("kind", ["webdataset", pytest.param("parquet", marks=pytest.mark.slow)])
def test_two_processes_read_what_one_reads(folders, tmp_path, kind):
    """A vision transformer has no batch statistics, so the losses agree."""
    flags = ["--max_steps", "9", "--augment", "flip", "--preset", "vit-tiny"]
    for name, num_processes in (("one", 1), ("two", 2)):
        words = ["pretrain", "vit", *pretrain(folders[kind], tmp_path / name)[2:], *flags]
        done = run_forked(list(map(str, words)), REPOSITORY, num_processes=num_processes)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), abs=1e-5)


def test_without_labels_and_with_broken_images(tmp_path):
    images = some_images(size=16)
    images[5] = (images[5][0][:40], images[5][1])
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data", images)
    flags = ["--streaming", "--preset", "resnet-tiny", "--image_size", "16", "--max_steps", "8", "--batch_size", "8"]
    words = ["pretrain", "simclr", "--corpus", tmp_path / "data", *flags, "--output_dir", tmp_path / "out"]
    done = run_here(*words)
    assert done.returncode == 2
    assert "image 6 of" in done.stderr
    assert "this is no image, or of a format that Pillow does not know" in done.stderr
    done = run_here(*words, "--skip_broken", "--overwrite_output_dir")
    assert done.returncode == 0, done.stderr
    assert "left out: image 6 of" in done.stderr


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: (folder / "a.txt").write_text("x"), "no data in this folder, expected files that end in"),
        (lambda folder: datasets.Dataset.from_dict({"a": [1]}).to_parquet(folder / "a.parquet"), "one file and no"),
        (
            lambda folder: [
                datasets.Dataset.from_dict({"a": [1], "label": [1]}).to_parquet(folder / f"{i}.parquet") for i in "ab"
            ],
            "no column holds images, found a, label",
        ),
    ],
)
def test_sources_that_cannot_be_streamed_are_named(tmp_path, make, said):
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    done = run_here(*pretrain(tmp_path / "data", tmp_path / "out", "--max_steps", "2"))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("toolkit: error:")
    assert not (tmp_path / "out").exists()


def test_hub_images_are_streamed(hub, folders, tmp_path):
    done = hub.run("push", folders["parquet"], "me/images", "--repo_type", "dataset")
    assert done.returncode == 0, done.stderr
    flags = ["--max_steps", "4"]
    done = hub.run(*pretrain("me/images", tmp_path / "by_name", *flags))
    assert done.returncode == 0, done.stderr
    done = run_here(*pretrain(folders["parquet"], tmp_path / "by_folder", *flags))
    assert done.returncode == 0, done.stderr
    ours, other = (load_file(tmp_path / name / "model.safetensors") for name in ("by_name", "by_folder"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in ours.items())
    copies = [path for path in Path(hub.environment["HF_HOME"]).rglob("*") if path.is_file()]
    assert not any(some_images()[0][0] in path.read_bytes() for path in copies)


def test_a_head_of_twenty_thousand_classes_trains(tmp_path):
    """With one image per class, the loss starts at that of a random guess and falls."""
    (tmp_path / "data").mkdir()
    num_classes = 20_000
    image = some_images()[0][0]
    names = [f"class {number:05d}" for number in range(num_classes)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    for number in range(2):
        columns = {"image": [{"bytes": image, "path": None}] * num_classes, "label": list(range(num_classes))}
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(tmp_path / "data" / f"{number}.parquet")
    done = run_here(*pretrain(tmp_path / "data", tmp_path / "out", "--max_steps", "6"))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert len(config["id2label"]) == num_classes
    assert record["metrics"]["loss"]["value"] == pytest.approx(9.9, abs=0.5)  # the logarithm of 20,000
    assert record["peak_memory_mb"] < 2_500
