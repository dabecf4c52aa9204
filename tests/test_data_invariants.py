"""What holds for every layout of files, every table and every image, on examples that `hypothesis` draws.

Each property is checked on 50 examples, and by `make test-slow` on 2,000. They depend on the property alone
(`derandomize`), so that every run draws the same ones and a failure repeats.
"""

import csv
import io
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from toolkit.data.image_decoding import open_image
from toolkit.data.image_files import IMAGES
from toolkit.data.labelled_text import load_labelled_text
from toolkit.data.splits import find_data
from toolkit.errors import InputError


def holds_for(*drawn):
    """Make a property a test: on a few examples, and on 2,000 if slow tests run."""

    def decorate(check):
        @pytest.mark.parametrize("number", [50, pytest.param(2000, marks=pytest.mark.slow)])
        def test(number):
            settings(max_examples=number, derandomize=True, deadline=None)(given(*drawn)(check))()

        test.__doc__ = check.__doc__
        return test

    return decorate


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Else thousands of tables would stay in the cache of `datasets`."""
    with mock.patch("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache")):
        yield


# Which files are data, and of which split

SPLITS = {
    "train": "train training",
    "validation": "validation valid val development dev evaluation eval",
    "test": "test testing",
}
SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words.split()}
NO_DATA = [".cache", ".ipynb_checkpoints", "__MACOSX", "@eaDir"]
PLAIN = ["a", "boat", "contest", "trains", "latest", "extra", "x y", "Ünï", "7"]
SHAPES = ["{}", "{}", "{}", "{}2", "{}2017", "{}-00001-of-00002", "en-{}", "fr-{}", "{}_set", "litmus {}", "{}_diary"]

words = st.sampled_from(["train", "test", *SPLIT_OF])
cased = st.builds(lambda word, case: case(word), words, st.sampled_from([str.lower, str.upper, str.title]))
names = st.sampled_from(PLAIN) | st.builds(str.format, st.sampled_from(SHAPES), cased)
alike = st.builds(lambda shape, of: list(map(shape.format, of)), st.sampled_from(SHAPES), st.lists(cased, min_size=2))
groups = st.builds(
    list.__add__, alike.map(lambda group: group[:3]) | st.just([]), st.lists(names, min_size=1, max_size=2)
)
suffixes = st.sampled_from([*5 * [".txt"], ".TXT", ".txt.gz", ".md", ".csv"])
special_files = st.sampled_from([".DS_Store", "Thumbs.db", "._a.txt", "metadata.csv", "Metadata.JSONL"])


@st.composite
def layouts(draw):
    """Paths of files, folders that are those of runs, and links: where, to what, and to which of the files."""
    folder_names = draw(groups | st.just(["a", "b"])) + draw(st.lists(st.sampled_from(NO_DATA), max_size=1))
    file_names = [name + draw(suffixes) for name in draw(groups)] + draw(st.lists(special_files, max_size=1))
    folders = st.lists(st.sampled_from(folder_names), max_size=2)
    files = draw(st.lists(st.builds(Path, folders.map("/".join), st.sampled_from(file_names)), min_size=2, max_size=8))
    kinds = st.sampled_from(["link", "hard link", "link to a folder", "link to nowhere"])
    places = st.builds(Path.with_name, st.sampled_from(files), st.sampled_from(["same.txt", *file_names]))
    links = draw(st.lists(st.tuples(places, kinds, st.sampled_from(files)), max_size=2))
    return files, draw(st.sampled_from([[], [], [], folder_names[:1]])), links


def build(root: Path, layout) -> None:
    files, runs, links = layout
    for path in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(str(path))
    for run in runs:
        if (root / run).is_dir():
            (root / run / ".toolkit-run").touch()
    for path, kind, file in links:
        link, target = root / path, root / file
        if os.path.lexists(link):
            continue
        if kind == "hard link":
            os.link(target, link)
        else:
            link.symlink_to({"link": target, "link to a folder": target.parent}.get(kind, root / "nowhere.txt"))


def walk(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files of a folder, through links, but not around in circles."""
    above = (*above, os.path.realpath(folder))
    for entry in folder.iterdir():
        if not entry.is_dir():
            yield entry
        elif os.path.realpath(entry) not in above:
            yield from walk(entry, above)


def or_refusal(read, *arguments):
    """What a function returns, or the message with which it refuses its arguments."""
    try:
        return read(*arguments)
    except InputError as error:
        return str(error)


def speaks_of_a_split(name: str) -> bool:
    return not SPLIT_OF.keys().isdisjoint(re.findall(r"[^\W\d_]+", name.lower()))


def plain_split(path: Path) -> str | None:
    """The split of a path in which one name is a word of a split, perhaps with a number, and no other name has one."""
    speaking = [name for name in path.parts if speaks_of_a_split(name)]
    match = re.fullmatch(r"([a-z]+)\d*(\.txt)?(\.gz)?", speaking[0].lower()) if len(speaking) == 1 else None
    return match and SPLIT_OF.get(match[1])


@holds_for(layouts())
def test_every_file_is_of_one_split_or_said_to_be_left_out(layout):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "data" / "top"
        root.mkdir(parents=True)
        build(root, layout)
        found, nested = (or_refusal(find_data, folder, {".txt"}) for folder in (root, root.parent))
        if isinstance(found, str):
            assert found.startswith(f"{root}/")
            assert nested == found
            assert any(speaks_of_a_split(name) for file in walk(root) for name in file.relative_to(root).parts)
            return
        splits = {split: list(files) for split, files in found.splits.items()}
        assert {split: list(files) for split, files in nested.splits.items()} == splits
        data = [file for files in splits.values() for file in files]
        assert len({(file.stat().st_ino if file.exists() else file) for file in data}) == len(data)
        said = {*data, *found.metadata, *(path for paths in found.left_out.values() for path in paths)}
        assert not [file for file in walk(root) if said.isdisjoint([file, *file.parents])]
        for split, files in splits.items():
            for file in files:
                below = file.relative_to(root)
                assert below.name.lower().endswith((".txt", ".txt.gz"))
                assert not any(name.startswith(".") or name in NO_DATA for name in below.parts)
                assert plain_split(below) in (None, split)


PLACES = [
    "{split}/{label}/{n}",
    "top/{split}/more/{label}/{n}",
    "{label}/{split}/{n}",
    "{label}/{n}",
]
FOLDERS = ["bar", "disc", "01", "1", "None", "NA", "-1", "True", "café", "Ünï x", "contest"]


@st.composite
def class_folders(draw):
    """Paths without a suffix, each with its split and label."""
    labels = draw(st.lists(st.sampled_from(FOLDERS), min_size=2, max_size=3, unique=True))
    spelled = {
        split: draw(cased.filter(lambda word, split=split: SPLIT_OF[word.lower()] == split)) for split in SPLITS
    }
    place = draw(st.sampled_from(PLACES))
    splits = st.sampled_from(["train"] if "split" not in place else list(SPLITS))
    rows = [(draw(splits), label) for label in labels]  # a single label is refused
    rows += draw(st.lists(st.tuples(splits, st.sampled_from(labels)), max_size=8))
    return {
        place.format(split=spelled[split], label=label, n=n): (split, label) for n, (split, label) in enumerate(rows)
    }


@holds_for(class_folders(), st.booleans())
def test_labels_of_class_folders_are_the_names_of_the_folders(rows, are_images):
    with tempfile.TemporaryDirectory() as folder:
        for path in rows:
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            if are_images:
                Image.new("L", (1, 1)).save(f"{folder}/{path}.png")
            else:
                (Path(folder) / f"{path}.txt").write_text(path)
        for split in {split for split, _ in rows.values()}:
            found = (IMAGES.load_labelled if are_images else load_labelled_text)(folder, split)
            read = zip(found["name" if are_images else "text"], found["label"], strict=True)
            names = {name.removeprefix(f"{folder}/").removesuffix(".png"): label for name, label in read}
            assert names == {path: label for path, (of, label) in rows.items() if of == split}


# Labels are what the file says

VALUES = ["NA", "None", "null", "nan", "01", "1", "1.0", "1e3", "True", "-1", "caf\u00e9", "cafe\u0301", " a ", "a"]
VALUES += ["", " ", "\u00a0", 'two "quotes"', '"', "a,b", "a\tb", "two\nlines", "two\r\nlines", "\ufeffa", "'", "\\"]
strings = st.sampled_from(VALUES) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
whole_numbers = st.integers(-2, 12) | st.sampled_from([-100, 2**40])


def expected_of(texts: list, labels: list) -> tuple[list[str], list[str]] | str:
    """What a table holds by the rules of docs/data.md, or the message of its refusal."""
    labels = [unicodedata.normalize("NFC", label).strip() if isinstance(label, str) else label for label in labels]
    if set(labels) == {-1}:
        return "all rows have the label -1"
    for name, values in (("label", labels), ("text", texts)):
        for number, value in enumerate(values, start=1):
            if value in (None, -100) or not str(value).strip():
                return f"row {number} has no {name}"
    return texts, list(map(str, labels))


def check_table(file: Path, expected: tuple[list[str], list[str]] | str) -> None:
    found = or_refusal(load_labelled_text, str(file))
    if isinstance(expected, str):
        assert expected in found
    else:
        assert (found["text"][:], found["label"][:]) == expected


def quoted(value: str, always: bool) -> str:
    return '"' + value.replace('"', '""') + '"' if always or set(value) & set('",\t\r\n') else value


@holds_for(
    st.lists(st.tuples(strings, strings), min_size=1, max_size=6),
    st.sampled_from([("csv", ","), ("tsv", "\t")]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_a_csv_holds_what_pythons_module_reads(rows, kind, always, line_end, encoding):
    suffix, delimiter = kind
    lines = [delimiter.join(quoted(value, always) for value in row) for row in [("text", "label"), *rows]]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"data.{suffix}"
        file.write_bytes(line_end.join([*lines, ""]).encode(encoding))
        with open(file, encoding="utf-8-sig", newline="") as opened:
            _, *read = csv.reader(opened, delimiter=delimiter)
        texts, labels = map(list, zip(*read, strict=True))
        check_table(file, expected_of(texts, labels))


@holds_for(st.lists(strings, min_size=1, max_size=6), st.data())
def test_json_lines_hold_what_pythons_module_reads(texts, data):
    of_labels = data.draw(st.sampled_from([strings, whole_numbers, st.booleans()]))
    labels = data.draw(st.lists(of_labels, min_size=len(texts), max_size=len(texts)))
    is_ascii = data.draw(st.booleans())
    lines = [
        json.dumps({"text": text, "label": label}, ensure_ascii=is_ascii)
        for text, label in zip(texts, labels, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.jsonl"
        file.write_text("\n".join(lines), encoding="utf-8")
        check_table(file, expected_of(texts, labels))


@holds_for(
    st.lists(st.tuples(st.sampled_from(["a", "NA", ""]), st.integers(-1, 2)), min_size=1, max_size=6),
    st.sampled_from([pa.int8(), pa.int64(), pa.uint16(), pa.string(), pa.large_string(), *3 * ["names"]]),
    st.permutations(["neg", "pos", "NA"]),
)
def test_a_parquet_holds_what_arrow_reads(rows, kind, names):
    texts, ids = map(list, zip(*rows, strict=True))
    metadata = None
    if kind == "names":
        kind, labels = pa.int64(), [names[i] if i >= 0 else "" for i in ids]
        features = {
            "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": names, "_type": "ClassLabel"},
        }
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    else:
        ids = [str(i) if "string" in str(kind) else abs(i) if kind == pa.uint16() else i for i in ids]
        labels = ids
    schema = pa.schema([("text", pa.string()), ("label", kind)], metadata)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.parquet"
        parquet.write_table(pa.table({"text": texts, "label": ids}, schema), file)
        check_table(file, expected_of(texts, labels))


# Images are what a person sees

TURNED = {  # a stored image as it is shown, by the orientation of the EXIF standard
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}
FORMATS = {
    "1": ["PNG", "TIFF", "BMP"],
    "L": ["PNG", "TIFF", "BMP", "PPM"],
    "LA": ["PNG", "TIFF"],
    "P": ["PNG", "GIF", "TIFF"],
    "RGB": ["PNG", "TIFF", "BMP", "PPM"],
    "RGBA": ["PNG", "TIFF"],
    "I;16": ["PNG", "TIFF"],
    "I": ["TIFF"],
    "F": ["TIFF"],
    "CMYK": ["TIFF"],
}


@st.composite
def pictures(draw):
    """The bytes of an image, and by hand what a person sees of it on white: (height, width, 3), from 0 to 255."""
    mode = draw(st.sampled_from(list(FORMATS)))
    kind = draw(st.sampled_from(FORMATS[mode]))
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    alpha, options = np.ones((height, width, 1)), {}
    channels = {"LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}.get(mode, 1)
    stored = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    stored[rng.random((height, width)) < 0.3] = rng.choice([0, 255])
    shown = stored.astype(float)
    if mode == "1":
        image = Image.fromarray(stored[..., 0]).point(lambda value: 255 * (value >= 128), mode="1")
        shown = 255.0 * (stored >= 128)
    elif mode in ("I;16", "I", "F"):
        shown = rng.choice([1, 1.2, 200, 255, 1050, 65_535]) * shown / 255
        if mode != "I;16":
            shown -= rng.choice([0, 0, 1000])
        stored = shown.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        image = Image.fromarray(stored[..., 0])
        if (mode, kind) == ("I;16", "PNG") and draw(st.booleans()):  # one value is transparent
            options["transparency"] = int(stored[0, 0, 0])
            alpha = 1.0 - (stored == stored[0, 0])
        there = stored[alpha > 0].astype(float)
        black, white = min([0, *there]), max(there, default=0)
        if black == 0 and white <= 1 and mode == "F":
            white = 1
        elif black == 0 and white <= 255 and (there == there.round()).all():
            white = 255
        shown = (stored - black) / (white - black or 1) * 255
        shown[alpha == 0] = 0
    elif mode == "P":
        palette = rng.integers(0, 256, (256, 3), dtype=np.uint8)
        image = Image.fromarray(stored[..., 0]).convert("P")
        image.putpalette(palette.tobytes())
        shown = palette[stored[..., 0]].astype(float)
    else:
        image = Image.frombytes(mode, (width, height), stored.tobytes())
    if mode in ("LA", "RGBA"):
        shown, alpha = shown[..., :-1], shown[..., -1:] / 255
    elif mode == "CMYK":
        shown = (255 - shown[..., :3]) * (255 - shown[..., 3:]) / 255
    elif mode in ("L", "RGB", "P") and kind in ("PNG", "GIF") and draw(st.booleans()):  # one colour is transparent
        colour = stored[0, 0]
        options["transparency"] = int(colour[0]) if mode != "RGB" else tuple(map(int, colour))
        alpha = 1.0 - (stored == colour).all(axis=2, keepdims=True)
    assert image.mode == mode
    turned = draw(st.sampled_from(list(TURNED))) if kind in ("PNG", "TIFF") else 1
    if turned > 1 or draw(st.booleans()):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = turned
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue(), TURNED[turned](shown * alpha + 255 * (1 - alpha))


@holds_for(pictures())
def test_an_image_is_what_a_person_sees_on_white(picture):
    content, shown = picture
    found = open_image({"bytes": content, "path": None}, "drawn")
    assert found.mode == "RGB"
    difference = np.abs(np.asarray(found, dtype=float) - shown)
    assert difference.max() <= 1.01  # Pillow rounds twice when it composites


@st.composite
def damages(draw):
    """The bytes of an image of which some are changed, or the end is missing."""
    content = bytearray(draw(pictures())[0])
    for place, value in draw(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4)):
        content[int(place * len(content))] = value
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


@holds_for(damages() | st.binary(max_size=40))
def test_a_broken_image_is_named_or_read(content):
    with mock.patch.object(Image, "MAX_IMAGE_PIXELS", 100_000):
        found = or_refusal(open_image, {"bytes": content, "path": None}, "drawn")
    assert found.startswith("drawn: ") if isinstance(found, str) else found.mode == "RGB"
