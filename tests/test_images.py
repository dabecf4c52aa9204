"""Images: formats, sources, and conversion to pixel values."""

import base64
import collections
import io
import json
import re
import struct
import zlib
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from in_process import error_of, run_here
from PIL import Image, ImageFile, TiffImagePlugin
from torchvision.transforms import v2
from transformers import AutoImageProcessor

from tasks.baselines import pixel_labels
from toolkit.data import image_decoding
from toolkit.data.image_decoding import Decoding, open_image
from toolkit.data.image_files import IMAGES, SUFFIXES
from toolkit.errors import InputError
from toolkit.modalities import MODALITIES
from toolkit.modalities.arguments import ImageEncoderArguments
from toolkit.modalities.augmentation import Augmentation
from toolkit.modalities.image_batches import CollateImages
from toolkit.modalities.losses import weights_of_classes
from toolkit.modalities.pixels import PixelProcessor, decoding_of
from toolkit.training.sampler import SampleKey
from toolkit.transfer.encoders import load_encoder


def picture(width: int = 24, height: int = 16, mode: str = "RGB", seed: int = 0) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BILINEAR).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **settings) -> dict:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return {"bytes": file.getvalue(), "path": None}


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    turned = picture().transpose(Image.Transpose.ROTATE_90)
    upright = open_image(encoded(turned, "TIFF", exif=exif), "photo")
    assert upright.size == (24, 16)
    assert np.array_equal(upright, picture())


def test_a_classifier_of_8_bits_says_that_deep_images_are_scaled_one_by_one(tmp_path):
    flags = ["--encoder", "scratch:lenet-5", "--max_steps", "1", "--output_dir", tmp_path / "model"]
    done = run_here("finetune", "image", "--data", "sample", *flags)
    assert done.returncode == 0, done.stderr
    assert "more than 8 bits" not in done.stderr
    deep = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    for name in "ab":
        Image.fromarray(deep).save(tmp_path / f"{name}.png")
    image_decoding._say_own_range.cache_clear()
    done = run_here("predict", tmp_path / "model", tmp_path / "a.png", tmp_path / "b.png")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("each is scaled by its own range of values") == 1
    assert len(done.stdout.splitlines()) == 2


def test_sixteen_bit_grey_becomes_eight_bit():
    values = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    found = np.asarray(open_image(encoded(Image.fromarray(values)), "scan"))
    assert found.shape == (8, 8, 3)
    assert np.array_equal(found[..., 0], (values / 257).round())


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("P", "GIF"), ("RGBA", "PNG"), ("L", "PNG"), ("1", "PNG")]
)
def test_every_mode_becomes_rgb(mode, kind):
    found = open_image(encoded(picture(mode=mode), kind), "image")
    assert found.mode == "RGB"
    assert found.size == (24, 16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"no picture at all", "this is no image"),
        (encoded(picture(200, 200), "JPEG")["bytes"][:1200], "cannot be decoded"),
    ],
    ids=["empty", "text", "truncated"],
)
def test_broken_images_are_named(tmp_path, content, message):
    file = tmp_path / "x.png"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"x.png: .*{message}"):
        open_image({"bytes": None, "path": str(file)}, str(file))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("limit", [200, 100], ids=["above Pillow's warning", "above Pillow's error"])
def test_a_decompression_bomb_is_not_opened(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match=r"bomb: .*(pixels|large)"):
        open_image(encoded(picture(18, 16)), "bomb")


def write(kind: str, folder) -> str:
    images = [picture(seed=i) for i in range(4)]
    labels = ["cat", "dog", "cat", "dog"]
    if kind == "class folders":
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (folder / label).mkdir(exist_ok=True)
            image.save(folder / label / f"{i}.PNG")
        return str(folder)
    if kind == "csv":
        (folder / "pictures").mkdir()
        for i, image in enumerate(images):
            image.save(folder / "pictures" / f"{i}.png")
        lines = [f"pictures/{i}.png,{label}" for i, label in enumerate(labels)]
        (folder / "list.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")
        return str(folder / "list.csv")
    features = datasets.Features({"photo": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    columns = {"photo": [encoded(image) for image in images], "label": [0, 1, 0, 1]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "train.parquet")
    return str(folder / "train.parquet")


@pytest.mark.parametrize("kind", ["class folders", "csv", "parquet"])
def test_sources_give_the_same_images(kind, tmp_path):
    source = write(kind, tmp_path)
    rows = IMAGES.load_labelled(source)
    expected = {(label, picture(seed=i).tobytes()) for i, label in enumerate(["cat", "dog", "cat", "dog"])}
    assert {(row["label"], open_image(row["image"], row["name"]).tobytes()) for row in rows} == expected
    assert IMAGES.open_labelled(source).splits == (("train",) if kind == "class folders" else ())
    assert len(IMAGES.load_inputs([source])) == 4


def test_the_sample_is_three_splits_of_all_digits():
    splits = {name: IMAGES.load_labelled("sample", name) for name in ("train", "validation", "test")}
    assert sum(map(len, splits.values())) == 1797
    images = [open_image(row["image"], row["name"]).tobytes() for rows in splits.values() for row in rows]
    assert len(set(images)) == 1797, "no image is in two splits"
    assert {open_image(row["image"], row["name"]).size for row in splits["test"]} == {(8, 8)}
    assert all(len(set(rows["label"])) == 10 for rows in splits.values())
    with pytest.raises(InputError, match="no split 'dev'"):
        IMAGES.load_labelled("sample", "dev")


def test_a_class_without_images_and_a_missing_path_are_named(tmp_path):
    write("class folders", tmp_path)
    (tmp_path / "bird").mkdir()
    with pytest.raises(InputError, match="bird: no image in this folder"):
        IMAGES.load_labelled(str(tmp_path))
    (tmp_path / "list.csv").write_text("image,label\nnowhere.png,a\n")
    (row,) = IMAGES.load_labelled(str(tmp_path / "list.csv"))
    with pytest.raises(InputError, match=r"nowhere\.png: no such file"):
        open_image(row["image"], row["name"])


@pytest.mark.parametrize("place", ["", "train/"])
def test_a_json_beside_class_folders_is_left_out_and_a_table_refused(tmp_path, place):
    for i, label in enumerate(["cat", "dog", "cat"]):
        (tmp_path / place / label).mkdir(parents=True, exist_ok=True)
        picture(seed=i).save(tmp_path / place / label / f"{i}.png")
    for name in ("class_names.json", "dataset_info.json"):
        (tmp_path / name).write_text('{"names": ["cat", "dog"]}')
    opened = IMAGES.open_labelled(str(tmp_path))
    rows = opened.load(None)
    assert rows["label"][:] == ["cat", "cat", "dog"]
    (said,) = [line for line in opened.summary.lines() if line.startswith("left out of")]
    assert said.endswith("of another format: class_names.json, dataset_info.json")
    assert len(IMAGES.open_unlabelled(str(tmp_path)).load(None)) == 3
    files = "\n".join(f"{name},{label}" for name, label in zip(rows["name"], ["a", "b", "a"], strict=True))
    (tmp_path / "labels.csv").write_text(f"file_name,label\n{files}\n")
    for open_images in (IMAGES.open_labelled, IMAGES.open_unlabelled):
        with pytest.raises(InputError, match=r"labels\.csv: a table beside folders of images; name the table itself"):
            open_images(str(tmp_path))
    assert IMAGES.load_labelled(str(tmp_path / "labels.csv"))["label"][:] == ["a", "b", "a"]


@pytest.mark.parametrize("images", ["images", "images/0 images/1", "train test", "train test other"])
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_table_beside_a_folder_of_images_names_their_labels(tmp_path, images, suffix):
    """Also if the folder holds folders, or if folders of splits hold images."""
    names = [f"{folder}/{number}.png" for folder in images.split() for number in (0, 1)]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed=number).save(tmp_path / name)
    rows = datasets.Dataset.from_dict({"file_name": names, "label": ["a", "b"] * (len(names) // 2)})
    (rows.to_csv if suffix == "csv" else rows.to_json)(tmp_path / f"labels.{suffix}")
    assert IMAGES.load_labelled(str(tmp_path))["label"][:] == rows["label"][:]


def test_predict_says_what_it_leaves_out_of_a_folder(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write("class folders", (data.mkdir(), data)[1])
    flags = ["--encoder", "scratch:resnet-tiny", "--image_size", "16", "--max_steps", "1", "--output_dir", out]
    assert run_here("finetune", "image", "--data", data, *flags).returncode == 0
    done = run_here("predict", out, data)
    assert (len(done.stdout.splitlines()), "left out" in done.stderr) == (4, False)
    for name in ("cat/photo.heic", "dog/more.heic", ".thumbs/0.png", "cat/._0.png"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(b"")
    done = run_here("predict", out, data)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 4)
    assert done.stderr.splitlines()[:2] == [
        f"left out of {data}, hidden: .thumbs, cat/._0.png",
        f"left out of {data}, of another format: cat/photo.heic, dog/more.heic",
    ]


def load_image_encoder(
    name: str, auto_class: str, image_size: int | None = None, rows=None, pooling: str | None = None
):
    options = ImageEncoderArguments(image_size=image_size, pooling=pooling)
    return load_encoder(name, auto_class, MODALITIES["image"], options, rows)


def processor_of(name: str, image_size: int = 32):
    rows = datasets.Dataset.from_list([{"image": encoded(picture(seed=i)), "name": str(i)} for i in range(3)])
    return load_image_encoder(name, "AutoModelForImageClassification", image_size, rows)[1]


@pytest.mark.parametrize("name", ["scratch:resnet-tiny", "scratch:timm/test_resnet"])
def test_the_two_parts_of_a_processor_equal_the_whole(name):
    processor = processor_of(name)
    halves = PixelProcessor(processor)
    pixels = torch.from_numpy(halves.resize(picture()))
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == torch.uint8
    whole = processor(picture(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(halves.normalize(pixels[None]), whole, rtol=0, atol=1e-5)


def test_a_new_processor_normalizes_the_training_images(tmp_path):
    processor = processor_of("scratch:vit-tiny")
    pixels = torch.cat([processor(picture(seed=i), return_tensors="pt")["pixel_values"] for i in range(3)])
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(pixels.std(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=2e-3)
    processor.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path)(picture(seed=0), return_tensors="pt")["pixel_values"]
    assert torch.equal(again, pixels[:1])


def test_augmentation_depends_on_the_sample_key_only():
    pixels = torch.stack([torch.from_numpy(np.array(picture(32, 32, seed=i))).permute(2, 0, 1) for i in range(4)])
    changes = Augmentation(("flip", "shift", "rotate", "color", "zoom", "trivial", "erase"), seed=5)
    keys = [SampleKey(7, 1, example) for example in range(4)]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    changed = changes(pixels, keys)
    assert torch.equal(torch.get_rng_state(), before)
    assert changed.dtype == torch.uint8
    assert torch.equal(changed[2:], changes(pixels[2:], keys[2:]))
    assert not torch.equal(changed, changes(pixels, [replace(key, epoch=2) for key in keys]))
    assert torch.equal(Augmentation((), 0)(pixels, keys), pixels)


def test_an_image_is_flipped_in_every_second_epoch():
    pixels = torch.stack([torch.from_numpy(np.array(picture(32, 32))).permute(2, 0, 1)] * 64)
    flipped = []
    for epoch in (0, 1, 2):
        changed = Augmentation(("flip",), seed=5)(pixels, [SampleKey(0, epoch, example) for example in range(64)])
        is_flipped = (changed == pixels.flip(-1)).flatten(1).all(dim=1)
        assert torch.equal(~is_flipped, (changed == pixels).flatten(1).all(dim=1))
        flipped.append(is_flipped)
    assert torch.equal(flipped[0], ~flipped[1])
    assert torch.equal(flipped[0], flipped[2])
    assert 16 < flipped[0].sum() < 48


@pytest.mark.parametrize(("max_shift", "most"), [(1 / 8, 4), (1 / 16, 2), (0.01, 1)])
def test_shifts_pad_with_reflection(max_shift, most):
    pixels = torch.stack([torch.from_numpy(np.array(picture(24, 32))).permute(2, 0, 1)] * 200)
    changed = Augmentation(("shift",), 5, max_shift)(pixels, [SampleKey(0, 1, example) for example in range(200)])
    padded = v2.functional.pad(pixels[0], [most, most], padding_mode="reflect")
    height, width = pixels.shape[2:]
    places = [(top, left) for top in range(2 * most + 1) for left in range(2 * most + 1)]
    crops = {(top, left): padded[:, top : top + height, left : left + width] for top, left in places}
    found = [[place for place, crop in crops.items() if torch.equal(crop, image)] for image in changed]
    assert all(len(matches) == 1 for matches in found)
    assert {top for [(top, _)] in found} == {left for [(_, left)] in found} == set(range(2 * most + 1))


def test_images_grow_during_training():
    pixels = np.asarray(picture(32, 32)).transpose(2, 0, 1)
    row = {"pixels": pixels.tobytes(), "height": 32, "width": 32, "label": 1}
    collate = CollateImages(processor_of("scratch:resnet-tiny"), size_start=16)
    sizes = [
        collate([row], [SampleKey(0, 0, 0, progress=p)])["pixel_values"].shape[-1] for p in (0, 0.4, 0.74, 0.75, 0.99)
    ]
    assert sizes == [16, 24, 28, 32, 32]
    (half,) = collate([row], [SampleKey(0, 0, 0, progress=0)])["pixel_values"]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(pixels.copy())[None].float(), 16, mode="bilinear", antialias=True
    )
    torch.testing.assert_close(half, PixelProcessor(collate.processor).normalize(expected)[0])


def test_class_weights_balance_the_labels():
    counts = collections.Counter("aaab")
    weights = weights_of_classes(counts, ["a", "b"])
    assert weights == pytest.approx([4 / 6, 2])
    assert sum(weights[label] * counts[name] for label, name in enumerate("ab")) == pytest.approx(counts.total())


def deep_images(folder, low: int, high: int, scale: float = 1.0) -> None:
    """Discs and bars of 16 bits, whose values lie between two numbers."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(16), np.arange(16))
    for label, shape in (("disc", (across - 8) ** 2 + (down - 8) ** 2 < 16), ("bar", abs(across - 8) < 2)):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            values = low + (high - low) * (0.2 + 0.6 * shape + 0.2 * rng.random((16, 16)))
            Image.fromarray((values * scale).astype(np.uint16)).save(folder / label / f"{number}.png")


def test_images_of_twelve_bits_fill_the_range_of_grey(tmp_path):
    deep_images(tmp_path / "data", 900, 1050)
    flags = ["--encoder", "scratch:resnet-tiny", "--image_size", "16", "--max_steps", "40", "--learning_rate", "3e-3"]
    done = run_here("finetune", "image", *flags, "--data", tmp_path / "data", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    files = [*(tmp_path / "data").rglob("*.png")]
    largest = max(Image.open(file).getextrema()[1] for file in files)
    processor = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert processor["white_level"] == largest
    assert f"images of more than 8 bits: 0 becomes black, {largest:,} becomes white" in done.stderr
    names = run_here("predict", tmp_path / "out", tmp_path / "data").stdout.splitlines()
    assert all(f"/{line.split(chr(9))[0]}/" in line for line in names), "each image is recognized"
    rows = IMAGES.load_labelled(str(tmp_path / "data"))
    values = np.asarray(open_image(rows[0]["image"], "x", Decoding(white=largest)))[..., 0]
    expected = np.asarray(Image.open(rows[0]["name"])).astype(float) / largest * 255
    assert np.abs(values - expected).max() <= 0.5


@pytest.mark.parametrize("kind", ["float", "negative"])
def test_images_of_any_range_are_told_apart(tmp_path, kind):
    """Floats beyond 255, and whole numbers below zero, as in computed tomography."""
    deep_images(tmp_path / "data", 900, 1050)
    for file in [*(tmp_path / "data").rglob("*.png")]:
        values = np.asarray(Image.open(file)).astype(np.float32 if kind == "float" else np.int32)
        Image.fromarray(values if kind == "float" else values - 2000).save(file.with_suffix(".tiff"))
        file.unlink()
    flags = ["--encoder", "scratch:resnet-tiny", "--image_size", "16", "--max_steps", "40", "--learning_rate", "3e-3"]
    done = run_here("finetune", "image", *flags, "--data", tmp_path / "data", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = run_here("predict", tmp_path / "out", tmp_path / "data").stdout.splitlines()
    assert all(f"/{line.split(chr(9))[0]}/" in line for line in names), "each image is recognized"
    values = np.stack([Image.open(file) for file in (tmp_path / "data").rglob("*.tiff")])
    processor = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert processor["white_level"] == values.max()
    assert processor.get("black_level") == (values.min() if kind == "negative" else None)


@pytest.mark.parametrize(
    ("images", "black", "white"),
    [
        ([np.float32([[0, 0.5]]), np.float32([[0.9, 0]])], 0, 1),
        ([np.float32([[0, 0.5]]), np.float32([[1.2, 0]])], 0, 1.2),
        ([np.float32([[0, 200]]), np.float32([[7, 0]])], 0, 255),
        ([np.float32([[900, 1050]]), np.float32([[0.5, 0]])], 0, 1050),
        ([np.int32([[0, 200]]), np.int32([[7, 0]])], 0, 255),
        ([np.int32([[0, 200]]), np.int32([[4000, 0]])], 0, 4000),
        ([np.int32([[-1000, 200]]), np.int32([[3000, 0]])], -1000, 3000),
        ([np.float32([[0, np.nan]]), np.float32([[7.5, np.inf]])], 0, 7.5),
        ([np.int32([[-5, -5]]), np.int32([[-5, -5]])], -5, -5),
        ([np.uint16([[0, 4095]]), np.uint8([[255, 255]])], 0, 4095),
    ],
)
def test_images_of_more_than_8_bits_have_one_range(images, black, white):
    stored = [encoded(Image.fromarray(image), "TIFF") for image in images]
    decoding = Decoding.of_images(stored)
    assert (decoding.black, decoding.white) == (black, pytest.approx(white))
    for image, of_file in zip(images, stored, strict=True):
        shown = np.asarray(open_image(of_file, "x", decoding))[..., 0].astype(float)
        if image.dtype != np.uint8:
            expected = (image.astype(float) - black) * 255 / max(white - black, 1e-9)
            expected[np.isnan(expected)] = 255  # the background
            expected = expected.clip(0, 255)
            assert np.abs(shown - expected).max() <= 0.51
    assert Decoding.of_images(stored[:0]) == Decoding.of_images([encoded(picture())]) == Decoding()


def test_deep_images_among_many_others_are_found():
    """Class folders one after the other: only the last has images of 16 bits."""
    flat, deep = encoded(Image.new("L", (1, 1))), encoded(Image.fromarray(np.uint16([[3000]])))
    assert Decoding.of_images([flat] * 1990 + [deep] * 10).white == 3000


def png(width: int, height: int, bits: int, kind: int, lines: bytes, transparent: int | None = None) -> dict:
    """A PNG of any kind that the standard knows; Pillow writes fewer. Each of the `lines` begins with a zero."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    colour = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    chunks = chunk(b"IHDR", header) + colour + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return {"bytes": b"\x89PNG\r\n\x1a\n" + chunks, "path": None}


def deep_png(values: np.ndarray, transparent: int | None = None) -> dict:
    """A PNG of 16 bits with one channel or several."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], lines, transparent)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_several_channels(channels):
    """Pillow reads the upper 8 bits: 16 bits can be seen, 12 cannot."""
    values = np.random.default_rng(0).integers(0, 65_536, (8, 8, channels))
    has_alpha = channels in (2, 4)
    if has_alpha:
        values[..., -1] = 65_535
    found = np.asarray(open_image(deep_png(values), "scan"))
    assert np.array_equal(found[..., : channels - has_alpha], values[..., : channels - has_alpha] // 256)
    dark = values // 16
    for alpha in (4095, 65_535) if has_alpha else (None,):
        if has_alpha:
            dark[..., -1] = alpha
        with pytest.raises(InputError, match="scan: an image with 16 bits per channel"):
            open_image(deep_png(dark), "scan")
    if has_alpha:  # black ink on a transparent sheet
        ink = np.zeros_like(values)
        ink[2:4, :, -1] = 65_535
        assert np.array_equal(np.asarray(open_image(deep_png(ink), "ink"))[..., 0] == 0, ink[..., -1] > 0)


def test_sixteen_bits_in_separate_planes_are_refused():
    """Pillow would take each byte for a pixel."""
    values = np.random.default_rng(0).integers(0, 65_536, (3, 2, 2), dtype=np.uint16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {256: 2, 257: 2, 258: (16,) * 3, 259: 1, 262: 2, 277: 3, 279: (8,) * 3, 284: 2}.items():
        tags[tag] = value
    tags[273] = (0, 8, 16)  # where the planes are, after the tags
    content = b"II*\0" + struct.pack("<I", 8) + tags.tobytes(8) + values.tobytes()
    with pytest.raises(InputError, match="scan: an image with 16 bits per channel"):
        open_image({"bytes": content, "path": None}, "scan")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_value_of_few_bits_becomes_the_background(bits):
    """The first pixel of 0 is shown, the second, the largest value, is transparent."""
    largest = 2**bits - 1
    stored = png(2, 1, bits, 0, bytes([0, largest << (8 - 2 * bits)]), transparent=largest)
    assert np.asarray(open_image(stored, "x", Decoding(background="#0000ff")))[0].tolist() == [[0] * 3, [0, 0, 255]]


def test_a_transparent_value_of_16_16_bits_becomes_the_background():
    values = np.array([[0, 300, 1000, 2000]])
    stored = deep_png(values[..., None], transparent=300)
    found = np.asarray(open_image(stored, "x", Decoding(2000, background="#0000ff")))
    assert found[0].tolist() == [[0, 0, 0], [0, 0, 255], [128, 128, 128], [255, 255, 255]]
    assert Decoding.of_images([deep_png(values[..., None], transparent=2000)]).white == 1000


def test_white_is_zero_in_some_images_of_16_bits():
    values = np.uint16([[0, 1000], [3000, 4000]])
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    one, zero = (struct.pack("<HHIHH", 262, 3, 1, kind, 0) for kind in (1, 0))  # PhotometricInterpretation
    assert file.getvalue().count(one) == 1
    found = open_image({"bytes": file.getvalue().replace(one, zero), "path": None}, "film", Decoding(4000))
    assert np.asarray(found)[..., 0].tolist() == [[255, 191], [64, 0]]


def deep_and_flat(folder) -> None:
    """Images of 12 bits in `deep`, and others of 8 in `flat`."""
    deep_images(folder / "deep", 900, 1050)
    for file in (folder / "deep").rglob("*.png"):
        values = np.asarray(Image.open(file)).astype(float)
        flat = folder / "flat" / file.relative_to(folder / "deep")
        flat.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * (values - 900) / 150).astype(np.uint8)).save(flat)


def test_few_shot_takes_the_range_from_the_labelled_examples(tmp_path):
    """With an encoder that was trained on images of 8 bits."""
    deep_and_flat(tmp_path)
    flags = ["--encoder", "scratch:resnet-tiny", "--image_size", "16", "--max_steps", "1"]
    done = run_here("finetune", "image", *flags, "--data", tmp_path / "flat", "--output_dir", tmp_path / "encoder")
    assert done.returncode == 0, done.stderr
    assert "white_level" not in json.loads((tmp_path / "encoder" / "preprocessor_config.json").read_text())
    flags = ["--encoder", tmp_path / "encoder", "--data", tmp_path / "deep"]
    done = run_here("fewshot", "evaluate", *flags, "--ways", "2", "--shots", "5", "--queries", "5", "--episodes", "20")
    assert "becomes white" in done.stderr
    assert float(re.search(r"accuracy ([\d.]+)", done.stdout)[1]) == 1
    assert run_here("fewshot", "fit", *flags, "--output_dir", tmp_path / "fitted").returncode == 0
    largest = max(Image.open(file).getextrema()[1] for file in (tmp_path / "deep").rglob("*.png"))
    processor = json.loads((tmp_path / "fitted" / "preprocessor_config.json").read_text())
    assert processor["white_level"] == largest
    lines = run_here("fewshot", "predict", "--encoder", tmp_path / "fitted", tmp_path / "deep").stdout.splitlines()
    assert len(lines) == 24
    assert all(f"/{line.split(chr(9))[0]}/" in line for line in lines)


def test_the_baseline_and_thumbnails_show_images_of_12_bits(tmp_path):
    deep_images(tmp_path, 900, 1050)
    rows = IMAGES.load_labelled(str(tmp_path))
    assert [label for label, *_ in pixel_labels(rows, rows)] == rows["label"][:]
    for row in (rows[0], rows[23]):
        url = MODALITIES["image"].thumbnail(row)
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))
        values = np.asarray(Image.open(row["name"])).astype(float)
        assert np.abs(shown[..., 0] - 255 * values / values.max()).max() <= 0.5


def test_a_timm_network_keeps_how_images_are_decoded(tmp_path):
    deep_images(tmp_path / "data", 900, 1050)
    flags = ["--encoder", "scratch:timm/test_resnet", "--image_size", "16", "--max_steps", "1"]
    flags += ["--background", "black"]
    done = run_here("finetune", "image", *flags, "--data", tmp_path / "data", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    largest = max(Image.open(file).getextrema()[1] for file in (tmp_path / "data").rglob("*.png"))
    _, processor = load_image_encoder(str(tmp_path / "out"), "AutoModelForImageClassification")
    assert decoding_of(processor) == Decoding(largest, background="black")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 0, 255))
    image.putpixel((2, 2), (0, 0, 0, 128))
    saved = image.quantize(16) if mode == "P" else image.convert(mode)
    saved.save(tmp_path / "x.png")
    values = np.asarray(open_image({"bytes": None, "path": str(tmp_path / "x.png")}, "x"))
    assert values[0, 0].tolist() == [255] * 3
    assert values[1, 1].tolist() == [0] * 3
    assert abs(int(values[2, 2, 0]) - 127) <= 2


def test_a_background_is_chosen_and_kept(tmp_path):
    """Ink on a transparent sheet, black on white or on black: on black there is nothing to see."""
    for label, columns in (("left", slice(0, 4)), ("right", slice(12, 16))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(6):
            values = np.zeros((16, 16, 4), np.uint8)
            values[number : number + 8, columns, 3] = 255
            Image.fromarray(values).save(tmp_path / "data" / label / f"{number}.png")
    flags = ["--data", tmp_path / "data", "--encoder", "scratch:resnet-tiny", "--image_size", "16", "--max_steps", "1"]
    done = run_here("finetune", "image", *flags, "--background", "#000", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    processor = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert (processor["background"], processor["image_mean"]) == ("#000", [0, 0, 0])
    done = run_here("predict", tmp_path / "out", tmp_path / "data", "--output_format", "jsonl")
    probabilities = [json.loads(line)["probabilities"] for line in done.stdout.splitlines()]
    assert len(probabilities) == 12
    assert all(each == probabilities[0] for each in probabilities)
    done = run_here("finetune", "image", *flags, "--background", "paper", "--output_dir", tmp_path / "other")
    assert done.returncode == 2
    assert "--background paper: no such color" in error_of(done)


def test_every_format_that_pillow_decodes_is_data():
    Image.init()
    others = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"}  # without a decoder, or drawings that need Ghostscript
    of_pillow = {suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN and name not in others}
    assert of_pillow <= SUFFIXES


def test_metadata_that_cannot_be_parsed_is_ignored(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (8, 4), (10, 20, 30))
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.save(tmp_path / "broken.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    for name, size in (("turned.jpg", (4, 8)), ("broken.jpg", (8, 4))):
        assert open_image({"bytes": None, "path": str(tmp_path / name)}, name).size == size
