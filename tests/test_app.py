"""What the page stands on: projects, uploads, what it learns, and what visitors take away. Without a browser."""

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from in_process import error_of, run_here
from PIL import Image
from scipy.ndimage import correlate
from scipy.stats import norm
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import NearestCentroid

from toolkit import FewShotClassifier, InputError
from toolkit.app.answers import Answers
from toolkit.app.archive import write_archive
from toolkit.app.explanation import explain
from toolkit.app.included_encoders import ENCODERS
from toolkit.app.learner import Learner, groups_of, range_of, warnings_of
from toolkit.app.lessons import KERNELS, _attention_of_vectors, convolved, nearest_words, what_pretraining_bought
from toolkit.app.project import MOST_CLASSES, MOST_EXAMPLES, Project
from toolkit.app.project import NewExample as New
from toolkit.app.uploads import (
    LARGEST_SIDE,
    amplitude_of,
    read_image,
    read_project,
    read_recording,
    read_table,
    read_texts,
)
from toolkit.app.visits import Visits
from toolkit.export.onnx import export_classifier
from toolkit.metrics.intervals import wilson_interval
from toolkit.transfer.cross_validation import cross_validate
from toolkit.transfer.word_vectors import word_vectors

COLORS = {"red": (200, 30, 30), "green": (30, 160, 30), "blue": (40, 40, 200)}
HERTZ = {"low": 300, "middle": 700, "high": 1600}
TEXTS = {
    "weather": ["it will rain tomorrow", "a cold wind from the north", "sunny and warm all day", "snow in the hills"],
    "sport": ["they won the match", "the team lost again", "a goal in the last minute", "the players train hard"],
    "food": ["bread with butter", "a soup of fresh vegetables", "we cook rice and fish", "the cake was sweet"],
}


def picture(color: tuple[int, int, int], seed: int, size: int = 48) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-25, 25, (size, size, 3))
    return np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)


def as_png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def as_flac(hertz: float, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    times = np.arange(4000) / 8000
    samples = 0.3 * np.sin(2 * np.pi * hertz * random.uniform(0.95, 1.05) * times)
    file = io.BytesIO()
    soundfile.write(file, samples + 0.01 * random.standard_normal(4000), 8000, format="FLAC")
    return file.getvalue()


def examples_of(kind: str, count: int) -> dict[str, list[New]]:
    """New examples of three classes of a kind."""
    if kind == "image":
        return {
            name: [New(as_png(picture(color, seed)), f"{name} {seed}", ".png") for seed in range(count)]
            for name, color in COLORS.items()
        }
    if kind == "audio":
        return {
            name: [New(as_flac(hertz, seed), f"{name} {seed}", ".flac") for seed in range(count)]
            for name, hertz in HERTZ.items()
        }
    return {name: [New(text, text) for text in texts[:count]] for name, texts in TEXTS.items()}


def filled(folder: Path, kind: str, count: int = 4) -> Project:
    project = Project(folder, kind)
    for name, examples in examples_of(kind, count).items():
        project.add(project.add_class(name).key, examples)
    return project


def learned_from(project: Project):
    return list(Learner(ENCODERS[project.modality_name], project.modality_name).learn(project, lambda *_: None))[-1]


# Projects


def state_of(project: Project):
    return project.classes, project.examples


def test_every_change_can_be_undone_and_is_kept(tmp_path):
    project = filled(tmp_path / "project", "image", 2)
    red = project.classes[0]
    changes = (
        lambda: project.add_class("yellow"),
        lambda: project.change_class(red.key, "crimson", "#112233"),
        lambda: project.add(red.key, examples_of("image", 3)["red"]),
        lambda: project.remove([project.examples[0].key, project.examples[3].key]),
        lambda: project.remove_class(red.key),
    )
    states = [state_of(project)]
    for change in changes:
        change()
        states.append(state_of(project))
        assert state_of(Project(tmp_path / "project")) == states[-1]
    assert len(set(states)) == len(states)
    for state in states[-2::-1]:
        project.undo()
        assert state_of(project) == state
        assert state_of(Project(tmp_path / "project")) == state
    assert all(Path(project.item(example)).is_file() for example in project.examples)


def test_a_recording_of_a_camera_is_one_change(tmp_path):
    project = filled(tmp_path / "project", "image", 2)
    red = project.classes[0].key
    for number, burst in enumerate(("a", "a", "b", "b")):
        project.add(red, [New(as_png(picture((9, 9, 9), number)), "camera", ".png", burst)])
    assert project.undo() == "added 2 examples to red"
    project.remove([project.examples[-1].key])
    project.add(red, [New(as_png(picture((9, 9, 9), 9)), "camera", ".png", "a")])  # the recording goes on
    assert project.undo() == "added 1 example to red"
    assert project.undo() == "removed 1 example"
    assert len(project.of_class(red)) == 4
    for key in (red, project.classes[1].key):  # another class is chosen while the camera is on
        project.add(key, [New(as_png(picture((9, 9, 9), 50 + key)), "camera", ".png", "c")])
    assert project.undo() == "added 1 example to green"
    assert project.undo() == "added 1 example to red"


def test_an_example_whose_file_is_gone_is_left_out(tmp_path):
    visits = Visits(tmp_path, {})
    key, visit = visits.visit(None)
    project = visit.project("image")
    project.add(project.add_class("red").key, examples_of("image", 2)["red"])
    Path(project.item(project.examples[0])).unlink()
    back = Visits(tmp_path, {}).visit(key)[1]
    assert "so 1 example of this project cannot be shown" in back.troubles[0]
    assert state_of(back.project("image")) == (project.classes, project.examples[1:])
    back.project("image").write_zip(tmp_path / "project.zip")
    assert len(read_project(tmp_path / "project.zip", tmp_path / "opened").examples) == 1
    back.save("image", "saved")
    Path(back.project("image").item(project.examples[1])).unlink()
    next((back.folder / "saved" / "saved" / "files").iterdir()).unlink()
    back.open_saved("saved")
    assert "so 1 example of this project cannot be shown" in back.troubles[1]
    assert back.undo("image") == "back to the previous project"
    (back.project("image").folder / "project.json").write_text("{")
    back = Visits(tmp_path, {}).visit(key)[1]
    kept = tmp_path / "visitors" / key / "unreadable" / project.folder.name
    assert back.troubles[0].startswith(f"{project.folder / 'project.json'}: cannot be read")
    assert str(kept) in back.troubles[0]
    back.forget()
    assert (kept / "files").is_dir()
    assert not back.project("image").classes


def test_what_a_session_shows(tmp_path):
    visits = Visits(tmp_path, {"text": Learner(ENCODERS["text"], "text")})
    visit = visits.visit(None)[1]
    for name, examples in examples_of("text", 2).items():
        visit.project("text").add(visit.project("text").add_class(name).key, examples)
    assert [visit.show("a", kind) for kind in ("text", "text", "image", "text")] == [False, True, False, False]
    (*_, learned) = visit.learn("text", lambda *_: None)
    assert visit.shows("a", learned)
    assert not visit.shows("b", learned)
    training = visit.learn("text", lambda *_: None)
    next(training)
    visit.forget()
    assert not visit.show("a", "text")  # what was shown is of a classifier that was deleted
    list(training)
    assert visit.learned("text") is None
    visit.start_again("text")
    assert not visit.show("a", "text")
    assert not visit.shows("a", learned)


def test_undo_loses_no_project(tmp_path):
    visit = Visits(tmp_path, {}).visit(None)[1]
    visit.project("text").add_class("first")
    visit.project("text").remove_class(visit.project("text").classes[0].key)
    visit.start_again("text")
    assert visit.undo("text") == "back to the previous project"
    visit.undo("text")
    assert [each.name for each in visit.project("text").classes] == ["first"]
    visit.start_again("text")
    visit.project("text").add_class("second")
    again = Visits(tmp_path, {}).visit(visit.folder.name)[1]  # after a restart, only the projects are left to undo
    names = []
    for _ in range(3):
        again.undo("text")
        names.append(again.project("text").classes[0].name)
    assert names == ["first", "second", "first"]


def test_a_project_has_room_for_so_many_bytes(tmp_path, monkeypatch):
    project = filled(tmp_path / "project", "image", 2)
    monkeypatch.setattr("toolkit.app.project.MOST_BYTES", 6 * 7500)
    before = state_of(project)
    with pytest.raises(InputError, match="17 KB cannot be added: there are 33 KB, and at most 44 KB"):
        project.add(project.classes[0].key, examples_of("image", 3)["red"])
    assert state_of(project) == before
    project.remove_class(project.classes[2].key)
    project.forget()
    assert len(project.add(project.classes[0].key, examples_of("image", 2)["red"])) == 2


def test_files_are_deleted_when_asked(tmp_path):
    project = filled(tmp_path / "project", "image", 2)
    files = set((tmp_path / "project" / "files").iterdir())
    project.remove([project.examples[0].key])
    assert set((tmp_path / "project" / "files").iterdir()) == files
    assert project.forget() == 1
    assert {Path(project.item(example)) for example in project.examples} == set(
        (tmp_path / "project" / "files").iterdir()
    )
    with pytest.raises(InputError, match="nothing to undo"):
        project.undo()


def test_what_is_not_allowed_changes_nothing(tmp_path):
    project = filled(tmp_path / "project", "text", 2)
    before = state_of(project)
    key = project.classes[0].key
    cases = (
        (lambda: project.add_class("sport"), "already a class with this name"),
        (lambda: project.add_class("x" * 61), "61 characters"),
        (lambda: project.change_class(key, " "), "needs a name"),
        (lambda: project.change_class(key, color="red"), "not a color"),
        (lambda: project.add(99, [New("a", "a")]), "no longer exists"),
        (lambda: project.add(key, [New("a", "a")] * (MOST_EXAMPLES + 1)), "5,001 examples cannot be added"),
        (lambda: project.remove([99]), "no example to remove"),
    )
    for change, message in cases:
        with pytest.raises(InputError, match=message):
            change()
        assert state_of(project) == before


def test_there_are_at_most_200_classes(tmp_path):
    project = Project(tmp_path / "project", "text")
    for _ in range(MOST_CLASSES):
        project.add_class()
    assert len({each.name for each in project.classes}) == 200
    with pytest.raises(InputError, match="200 classes"):
        project.add_class()


def test_every_command_reads_the_table_of_a_project(tmp_path):
    for kind in ("image", "audio", "text"):
        project = filled(tmp_path / kind, kind)
        output = tmp_path / f"{kind}-classifier"
        table = tmp_path / kind / "examples.csv"
        done = run_here("fewshot", "fit", "--encoder", ENCODERS[kind], "--data", table, "--output_dir", output)
        assert done.returncode == 0, done.stderr
        assert sorted(FewShotClassifier.from_pretrained(output).classes_) == sorted(set(project.labels()))


def test_a_project_is_one_file_and_is_opened_again(tmp_path):
    project = filled(tmp_path / "project", "audio", 2)
    project.remove([project.examples[0].key])
    project.write_zip(tmp_path / "project.zip")
    opened = read_project(tmp_path / "project.zip", tmp_path / "opened")
    for of_project in (lambda each: [(one.name, one.color) for one in each.classes], lambda each: each.labels()):
        assert of_project(opened) == of_project(project)
    assert [one.name for one in opened.examples] == [one.name for one in project.examples]
    contents = [[Path(each.item(example)).read_bytes() for example in each.examples] for each in (project, opened)]
    assert contents[0] == contents[1]
    assert len(list((tmp_path / "opened" / "files").iterdir())) == 5


def test_an_image_project_takes_no_text_as_the_name_of_a_file(tmp_path):
    project = filled(tmp_path / "project", "image", 1)
    before = state_of(project)
    with pytest.raises(InputError, match="not an example of this project"):
        project.add(project.classes[0].key, read_texts("../../../../etc/passwd"))
    assert state_of(project) == before


def test_a_project_file_whose_content_is_no_image_is_refused(tmp_path):
    project = filled(tmp_path / "project", "image", 1)
    Path(project.item(project.examples[1])).write_bytes(b"no image")
    project.write_zip(tmp_path / "project.zip")
    with pytest.raises(InputError, match=r"no project of this page .*this is no image"):
        read_project(tmp_path / "project.zip", tmp_path / "opened")
    assert not (tmp_path / "opened").exists()


def test_a_project_file_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    project = filled(tmp_path / "project", "text", 1)
    text = (tmp_path / "project" / "project.json").read_text()
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("project.json", text)
        if method == zipfile.ZIP_DEFLATED:
            assert read_project(path, tmp_path / "opened").labels() == project.labels()
        else:
            with pytest.raises(InputError, match="an unsupported compression method"):
                read_project(path, tmp_path / "opened")
    record = json.loads(text)
    cases = {
        "more than 5,000 examples": record["examples"][:1] * 5001,
        "line 1: 2,001 characters": [[0, 0, "x" * 2001, "", "", ""]],
        "cannot convert float infinity": [[float("inf"), 0, "x", "", "", ""]],
        "values to unpack": [[0, 0, " ", "", "", ""]],
    }
    for message, examples in cases.items():
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr("project.json", json.dumps(record | {"examples": examples}))
        with pytest.raises(InputError, match=f"no project of this page .*{message}"):
            read_project(tmp_path / "bad.zip", tmp_path / "other")
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["../../outside.png", "/etc/passwd", "1.png/../../x.png", "1.pickle"])
def test_a_project_file_cannot_leave_its_folder(tmp_path, name):
    record = {
        "modality": "image",
        "classes": [[0, "a", "#000000"]],
        "examples": [[1, 0, name, "x", "d"]],
        "next_key": 2,
    }
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("project.json", json.dumps(record))
        archive.writestr(f"files/{name}", b"content")
    with pytest.raises(InputError, match="no project"):
        read_project(tmp_path / "bad.zip", tmp_path / "a" / "b" / "opened")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["bad.zip"]


def test_visitors_have_projects_of_their_own(tmp_path):
    visits = Visits(tmp_path, {})
    (first, one), (second, other) = visits.visit(None), visits.visit("../../x")
    assert first != second
    one.project("text").add_class("mine")
    assert not other.project("text").classes
    one.save("text", "Weather 1")
    with pytest.raises(InputError, match="already a project with this name"):
        one.save("text", "Weather 1")
    one.project("text").add_class("more")
    one.save("text", "Weather 1", overwrite=True)
    one.start_again("text")
    assert not one.project("text").classes
    assert other.saved() == []
    for name in ("../x", "a/b", "", ".hidden", "a" * 61):
        with pytest.raises(InputError, match="expected a name"):
            one.save("text", name)
    assert one.open_saved("Weather 1") == "text"
    assert [each.name for each in one.project("text").classes] == ["mine", "more"]
    one.start_again("text")
    one.project("text").add_class("new")
    one.delete_saved("Weather 1")
    # After the server was killed, a browser that comes back with its key finds all of it.
    again = Visits(tmp_path, {})
    assert again.browser_secret == visits.browser_secret
    back = again.visit(first)[1]
    assert [each.name for each in back.project("text").classes] == ["new"]
    back.undo("text")
    assert [each.name for each in back.project("text").classes] == ["mine", "more"]
    assert back.restore_saved() == "Weather 1"
    assert back.saved() == ["Weather 1"]
    back.delete_everything()
    assert not (tmp_path / "visitors" / first).exists()


# Uploads


def test_files_are_known_by_their_content(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", as_png(picture((0, 0, 0), 0)))
    cases = {
        "empty.png": (b"", "empty"),
        "text.png": (b"no image at all", "no image"),
        "cut.png": (as_png(picture((0, 0, 0), 0))[:300], "cannot be decoded"),
        "archive.png": (archive.getvalue(), "zip archive; unpack"),
        "large.png": (bytes(26 * 2**20), "26 MB, at most 25"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name, name)
    for name in ("empty.png", "text.png", "cut.png"):
        with pytest.raises(InputError, match=r"empty|no recording"):
            read_recording(tmp_path / name, name)
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 61), 8000)
    with pytest.raises(InputError, match="61 seconds long"):
        read_recording(tmp_path / "long.wav", "long.wav")


def test_images_keep_their_pixels_and_nothing_else(tmp_path):
    image = Image.fromarray(picture((10, 200, 90), 0, 400))
    exif = image.getexif()
    exif[0x010E] = "where it was taken"
    image.save(tmp_path / "photo.png", exif=exif)
    new = read_image(tmp_path / "photo.png", "photo.png")
    kept = Image.open(io.BytesIO(new.content))
    assert kept.size == (LARGEST_SIDE, LARGEST_SIDE)
    assert not kept.getexif()
    assert b"where it was taken" not in new.content
    assert np.abs(np.asarray(kept).mean(axis=(0, 1)) - np.asarray(image).mean(axis=(0, 1))).max() < 1


def test_recordings_are_one_channel_of_16_kHz_at_most(tmp_path):
    times = np.arange(44100) / 44100
    soundfile.write(tmp_path / "a.wav", np.stack([np.sin(2000 * times), np.zeros(44100)], axis=1), 44100)
    samples, rate = soundfile.read(io.BytesIO(read_recording(tmp_path / "a.wav", "a.wav").content))
    assert (samples.shape, rate) == ((16000,), 16000)
    assert np.sqrt((samples**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_the_amplitude_of_whole_numbers_and_of_floats():
    assert amplitude_of(np.array([100, -32767], np.int16)) == 1
    assert amplitude_of(np.array([[0.25, -0.5]], np.float32)) == 0.5
    assert amplitude_of(np.zeros(0, np.float32)) == 0


def test_quiet_recordings_are_known(tmp_path):
    project = filled(tmp_path / "project", "audio", 2)
    times = np.arange(4000) / 8000
    soundfile.write(tmp_path / "quiet.wav", 0.05 * np.sin(2000 * times), 8000)
    project.add(project.classes[0].key, [read_recording(tmp_path / "quiet.wav", "quiet.wav")])
    assert learned_from(project).quietest == pytest.approx(0.05, rel=0.02)


def test_a_quiet_microphone_is_not_answered(tmp_path):
    visits = Visits(tmp_path, {"audio": Learner(ENCODERS["audio"], "audio")})
    key, visit = visits.visit(None)
    for name, examples in examples_of("audio", 3).items():
        visit.project("audio").add(visit.project("audio").add_class(name).key, examples)
    list(visit.learn("audio", lambda *_: None))
    samples, rate = soundfile.read(io.BytesIO(as_flac(HERTZ["low"], 5)), dtype="int16")
    for loudness, expected in ((1, "low"), (20, "It is quiet.")):
        label, bars, tried, heard = Answers(visits).try_sound(key, (rate, samples // loudness), None)
        assert expected in label
        assert bool(bars) == (tried is not None) == (loudness == 1)
        assert len(heard) == len(samples)


def test_texts_and_tables():
    assert [new.content for new in read_texts("one  two\n\n three\n")] == ["one two", "three"]
    with pytest.raises(InputError, match="line 2: 2,001 characters"):
        read_texts("a\n" + "b" * 2001)
    found = read_table("good film\tpos\nbad\tneg\n\ntab\tin it\tpos\n")
    assert {label: [new.content for new in of_label] for label, of_label in found.items()} == {
        "pos": ["good film", "tab in it"],
        "neg": ["bad"],
    }
    with pytest.raises(InputError, match="line 1: expected a text, a tab and a label"):
        read_table("no label")


# Learning


def test_cross_validation_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 12)
    features = rng.normal(size=(3, 5))[np.repeat(np.arange(3), 12)] + rng.normal(size=(36, 5))
    plain = FewShotClassifier(method="prototype", metric="euclidean", center=False, normalize=False)
    found = cross_validate(plain, features, labels, range(36))
    folds = PredefinedSplit(found.folds)
    assert found.predicted.tolist() == cross_val_predict(NearestCentroid(), features, labels, cv=folds).tolist()
    assert 0 < found.accuracy["value"] < 1
    assert (found.confidence >= found.threshold()).mean() == pytest.approx(0.95, abs=0.03)
    counts = np.array([np.bincount(found.folds[labels == label]) for label in "abc"])
    assert counts.sum(axis=1).tolist() == [12, 12, 12]
    assert counts.min() >= 2  # every fold has examples of every class


def test_equal_examples_are_not_in_two_folds():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(12, 8)), 2, axis=0)  # noise, of which every vector occurs twice
    labels, groups = np.repeat(["a", "b"], 12), np.repeat(np.arange(12), 2).tolist()
    nearest = FewShotClassifier(method="nearest")
    apart = cross_validate(nearest, features, labels, groups)
    together = cross_validate(nearest, features, labels, range(24))
    assert together.accuracy["value"] > 0.8  # found by their copies
    assert apart.accuracy["value"] < 0.75
    assert apart.folds[::2].tolist() == apart.folds[1::2].tolist()
    value = apart.accuracy["value"]
    assert apart.accuracy == wilson_interval(value * 12, 12)  # a copy is no further evidence
    with pytest.raises(InputError, match="b: has one example"):
        cross_validate(nearest, features[:14], ["a"] * 12 + ["b"] * 2, [*range(12), 20, 20])


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (9, 9), (7, 12)])
def test_the_interval_is_wilsons(hits, trials):
    z, share = norm.ppf(0.975), hits / trials
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    found = wilson_interval(hits, trials)
    assert found["low"] == pytest.approx(center - half, abs=1e-9)
    assert found["high"] == pytest.approx(center + half, abs=1e-9)


@pytest.mark.parametrize("kind", ["image", "audio", "text"])
def test_the_page_and_the_command_line_are_equally_good(kind, tmp_path):
    project = filled(tmp_path / "project", kind)
    learned = learned_from(project)
    flags = ["--encoder", ENCODERS[kind], "--data", tmp_path / "project" / "examples.csv", "--folds", 5]
    output = tmp_path / "folds"
    done = run_here("fewshot", "evaluate", *flags, "--method", "linear", "--output_dir", output)
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "results.json").read_text())["metrics"]["accuracy"] == learned.tested.accuracy


def test_a_fourth_kind_of_image_is_rejected(tmp_path):
    learned = learned_from(filled(tmp_path / "project", "image", 8))
    assert learned.tested.accuracy["value"] == 1
    seen = [{"bytes": as_png(picture(COLORS[name], 99)), "path": None} for name in COLORS]
    assert learned.classifier.predict(seen).tolist() == list(COLORS)
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[:, ::6] = 255
    assert learned.classifier.predict([{"bytes": as_png(stripes), "path": None}]).tolist() == [None]


def test_warnings_say_what_to_be_careful_about(tmp_path):
    project = Project(tmp_path / "project", "text")
    for name, texts in (("many", [f"text {number}" for number in range(9)]), ("few", ["a", "text 1"])):
        project.add(project.add_class(name).key, [New(text, text) for text in texts])
    with pytest.raises(InputError, match="text 1: is in many and in few"):
        learned_from(project)
    project.remove([project.examples[-1].key])
    project.add(project.classes[1].key, [New("b", "b")])
    found = " ".join(learned_from(project).warnings)
    assert "fewer than 10 different examples" in found
    assert range_of({"value": 1.0, "low": 0.9962, "high": 1.0}) == "99% to 100%"
    assert "many has 9 examples, few has 2" in found
    project.remove([project.examples[-1].key])
    assert "Only one distinct example of few" in " ".join(warnings_of(project.state, None))
    project.add_class("empty")
    with pytest.raises(InputError, match="no example yet of empty"):
        learned_from(project)


def test_pictures_of_one_recording_stay_together_whatever_other_classes_have(tmp_path):
    project = Project(tmp_path / "project", "image")
    seeds = iter(range(12))
    for name, bursts in (("twice", "aabb"), ("once", "cccc"), ("files", ["", "", "", ""])):
        new = [New(as_png(picture((9, 9, 9), next(seeds))), name, ".png", burst) for burst in bursts]
        project.add(project.add_class(name).key, new)
    groups = groups_of(project.state)
    assert groups[:4] == ["a", "a", "b", "b"]
    assert len(set(groups[4:])) == 8
    learned = learned_from(project)
    assert learned.tested.folds[:4].tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    assert "All examples of once are from one recording" in " ".join(learned.warnings)
    assert "fewer than 10" in " ".join(learned.warnings)
    project.change_class(project.classes[0].key, color="#123456")
    assert learned.state.learns_like(project.state)
    project.change_class(project.classes[0].key, name="other")
    assert not learned.state.learns_like(project.state)


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_reasons_are_drawn(kind, tmp_path):
    project = filled(tmp_path / "project", kind)
    image, note = explain(learned_from(project).classifier, project.item(project.examples[0]))
    assert image.ndim == 3
    assert image.std() > 5
    assert project.labels()[0] in note


def test_a_word_that_decides_is_red(tmp_path):
    project = filled(tmp_path / "project", "text")
    classifier = learned_from(project).classifier
    _, note = explain(classifier, "the <b>soup</b> was cold")
    assert "&lt;b&gt;soup" in note
    assert note.count("<mark") == 4
    text = TEXTS["sport"][2]  # a goal in the last minute
    (before,) = classifier.logits([text])
    shown = re.findall(r'title="([+-][\d.]+)">(\w+)<', explain(classifier, text)[1])
    assert [word for _, word in shown] == text.split()
    for fall, word in shown:
        (after,) = classifier.logits([text.replace(word, "", 1)])
        assert float(fall) == pytest.approx(before.max() - after[before.argmax()], abs=1e-3)


# Lessons


@pytest.mark.parametrize(("pooling", "pool"), [("maximum", np.max), ("mean", np.mean)])
def test_a_kernel_is_laid_over_an_image_and_pooled(pooling, pool):
    image = picture((90, 120, 150), 1, 480)
    grey = image.mean(axis=2)
    values = correlate(grey, np.array(KERNELS["vertical edges"]), mode="nearest")
    values = pool(values.reshape(120, 4, 120, 4), axis=(1, 3))
    if values.min() < 0:
        values = 127.5 + 127.5 * values / np.abs(values).max()
    found = convolved(image, "vertical edges", 4, pooling)
    assert found.shape == (240, 240)  # enlarged to be seen
    assert np.abs(found[::2, ::2] - values.clip(0, 255)).max() < 1.01  # cut off to whole numbers


def test_words_attend_to_similar_words():
    learner = Learner(ENCODERS["text"], "text")
    model, tokenizer = learner.featurizer.model, learner.featurizer.processor
    words, shares = _attention_of_vectors(model, tokenizer, "she has two brothers, and three sisters")
    assert words == ["she", "has", "two", "brothers", ",", "and", "three", "sisters"]
    vectors = word_vectors(model, tokenizer, words)
    x = np.stack([vectors[word] for word in words])
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    exponentials = np.exp(x @ x.T / np.sqrt(x.shape[1])) * (1 - np.eye(len(x)))
    np.testing.assert_allclose(shares, exponentials / exponentials.sum(axis=1, keepdims=True), atol=1e-3)
    assert words[shares[words.index("two")].argmax()] == "three"
    assert "three" in nearest_words(learner, "two")


def test_what_pretraining_bought_is_cross_validated(tmp_path):
    project = filled(tmp_path / "project", "text")
    learner = Learner(ENCODERS["text"], "text")
    accuracies = re.findall(r"<td>([\d.]+)%", what_pretraining_bought(learner, project))
    assert float(accuracies[0]) == pytest.approx(100 * learned_from(project).tested.accuracy["value"], abs=0.05)
    assert accuracies[0] != accuracies[1]


# What is taken away


@pytest.mark.parametrize("kind", ["image", "audio", "text"])
def test_what_is_taken_away_answers_like_the_page(kind, tmp_path):
    project = filled(tmp_path / "project", kind)
    learned = learned_from(project)
    assert write_archive(learned, tmp_path / "taken.zip") == []
    with zipfile.ZipFile(tmp_path / "taken.zip") as archive:
        archive.extractall(tmp_path / "taken")
    items = [project.item(example) for example in project.examples]
    if kind == "text":
        items.append("Vöglein zwitschern, 鳥が")  # words that the encoder has to spell
    else:
        items.append(str(tmp_path / f"other{Path(items[0]).suffix}"))
        other = as_png(picture((255, 255, 255), 0)) if kind == "image" else as_flac(3500, 0)
        Path(items[-1]).write_bytes(other)
    labels, probabilities = learned.classifier.predict_with_proba(items)
    script = tmp_path / "taken" / "onnx" / "predict.py"
    alone = {"PATH": "", "PYTHONPATH": ""}  # neither this package nor a file of it
    done = subprocess.run(
        [sys.executable, "-I", str(script), *items, "--check"], capture_output=True, text=True, env=alone, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    *lines, checked = done.stdout.splitlines()
    for line, label, row in zip(lines, labels, probabilities, strict=True):
        answer, probability, _ = line.split("\t")
        assert answer == ("-" if label is None else label)
        assert float(probability) == pytest.approx(row.max(), abs=0.01)
    assert float(checked.rpartition(" ")[2]) < 0.01
    model = FewShotClassifier.from_pretrained(tmp_path / "taken" / "model")
    again, same = model.predict_with_proba(items)
    assert again.tolist() == labels.tolist()
    np.testing.assert_allclose(same, probabilities, atol=1e-5)
    parity = tmp_path / "taken" / "onnx" / "parity.json"
    cases = json.loads(parity.read_text())
    cases[0]["probabilities"][0] += 0.1
    parity.write_text(json.dumps(cases))
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "another answer" in done.stdout
    assert write_archive(learned, tmp_path / "without.zip", with_examples=False) == []
    with zipfile.ZipFile(tmp_path / "without.zip") as archive:
        assert not [name for name in archive.namelist() if "parity" in name]
        assert "parity" not in archive.read("README.md").decode()
        archive.extractall(tmp_path / "without")
    script = tmp_path / "without" / "onnx" / "predict.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "exported without examples" in done.stderr


@pytest.mark.slow
def test_an_exported_fasttext_spells_words_that_are_too_short_for_an_n_gram(tmp_path):
    shutil.copytree(ENCODERS["text"], tmp_path / "encoder")
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(config | {"min_n": 5}))
    texts = [text for of_label in TEXTS.values() for text in of_label]
    labels = np.repeat(list(TEXTS), 4)
    classifier = FewShotClassifier(str(tmp_path / "encoder"), method="linear").fit(texts, labels)
    (tmp_path / "onnx").mkdir()
    asked = ["qé", "the qé lost", "zyzzyva", "Ω x"]
    assert export_classifier(classifier, tmp_path / "onnx", asked) < 1e-4


# The command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: lets others reach the page, so it needs a --password"),
        (["--share"], "--share: lets others reach the page"),
        (["--host", "nowhere"], "--host nowhere: expected an IP address"),
        (["--port", "70000"], "--port 70000: expected a port"),
        (["--projects", __file__], f"--projects {__file__}: cannot be used"),
    ],
)
def test_flags_that_cannot_be_used(flags, message):
    assert message in error_of(run_here("app", *flags))
