"""A project: classes with their examples. It is kept in a folder, so that nothing is lost when page or server end.

PROJECT/project.json    what the examples are, and the classes with their colors
PROJECT/examples.csv    a row for each example, with its label: every command of the toolkit reads it as --data
PROJECT/files/          the images or recordings

A change writes both tables anew. Files of deleted examples stay until `forget`, so that every deletion can be undone.
"""

import csv
import hashlib
import io
import json
import re
import shutil
import threading
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import InputError, first_line
from toolkit.runs.output import write_json, write_text

PROJECT_FILE, TABLE_FILE, FILES = "project.json", "examples.csv", "files"
MOST_CLASSES, MOST_EXAMPLES, MOST_BYTES = 200, 5_000, 512 * 2**20
LONGEST_NAME = 60  # characters
# Okabe & Ito (2008), "Color universal design": told apart by people with any color vision. A class after the
# seventh has one of them again.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


class Class(NamedTuple):
    """A class of a project; `key` identifies it when the name changes."""

    key: int
    name: str
    color: str


class Example(NamedTuple):
    """An example of a class: a text, or the name of a file in the project's folder of files."""

    key: int
    of_class: int
    content: str
    name: str  # what the user called it
    digest: str  # the same for equal examples
    burst: str  # the same for pictures of one recording of a camera; empty for others


class NewExample(NamedTuple):
    """What is to become an example: a text, or the content and the suffix of a file, and what the user called it."""

    content: str | bytes
    name: str
    suffix: str = ""
    burst: str = ""


class State(NamedTuple):
    """Classes and examples at one time."""

    classes: tuple[Class, ...] = ()
    examples: tuple[Example, ...] = ()
    next_key: int = 0

    def labels(self) -> list[str]:
        """The name of the class of each example."""
        names = {each.key: each.name for each in self.classes}
        return [names[example.of_class] for example in self.examples]

    def groups(self) -> list[str]:
        """What identifies each example among those that are alike: its recording by a camera, or its content."""
        return [example.burst or example.digest for example in self.examples]

    def learns_like(self, other: "State") -> bool:
        """Whether the same is learned from both: they may differ in colors only."""
        names = [[(each.key, each.name) for each in state.classes] for state in (self, other)]
        return names[0] == names[1] and self.examples == other.examples


class _Change(NamedTuple):
    """A change that can be undone: what was done, and the state before; `burst` of pictures of a camera."""

    what: str
    before: State
    burst: str = ""


class Project:
    """Classes with examples, in a folder that the project has for itself.

    A change that is not allowed raises `InputError` and changes nothing.

    Args:
        folder: The folder; if it holds a project, that is opened.
        modality_name: `image`, `audio` or `text`; None to open a project.

    Attributes:
        num_lost: The number of examples that were left out when it was opened, since their files are missing.
    """

    def __init__(self, folder: Path, modality_name: str | None = None):
        self.folder = folder
        self._lock = threading.RLock()
        self._history: list[_Change] = []
        self.num_lost = 0
        if (folder / PROJECT_FILE).is_file():
            self.modality_name, self._state, self.num_lost = _read(folder)
            if self.num_lost:
                self._write(self._state)
        elif modality_name is None:
            raise InputError(f"{folder}: holds no project")
        else:
            self.modality_name, self._state = modality_name, State()
            self._write(self._state)
        self._num_bytes = sum(file.stat().st_size for file in (folder / FILES).glob("*"))  # also of removed examples

    @property
    def has_history(self) -> bool:
        """Whether there is a change that can be undone."""
        return bool(self._history)

    @property
    def state(self) -> State:
        """Classes and examples at this time."""
        return self._state

    @property
    def classes(self) -> tuple[Class, ...]:
        return self._state.classes

    @property
    def examples(self) -> tuple[Example, ...]:
        return self._state.examples

    def of_class(self, key: int) -> list[Example]:
        return [example for example in self.examples if example.of_class == key]

    def find_class(self, key: int) -> Class:
        for each in self.classes:
            if each.key == key:
                return each
        raise InputError("this class no longer exists")

    def item(self, example: Example) -> Any:
        """An example as the modality takes it: a text, or the path of a file."""
        return example.content if self.modality_name == "text" else str(self.folder / FILES / example.content)

    def items(self, state: State) -> list[Any]:
        """The examples of a state as the modality takes them."""
        return [self.item(example) for example in state.examples]

    def labels(self) -> list[str]:
        """The name of the class of each example."""
        return self._state.labels()

    # Changes

    def add_class(self, name: str | None = None) -> Class:
        """Add a class, by default with a name of its own."""
        with self._lock:
            state = self._state
            if len(state.classes) >= MOST_CLASSES:
                raise InputError(f"there are already {MOST_CLASSES} classes, the most allowed")
            added = Class(state.next_key, self._check_name(name or self._free_name()), _free_color(state.classes))
            after = state._replace(classes=(*state.classes, added), next_key=state.next_key + 1)
            self._change(f"added the class {added.name}", after)
        return added

    def change_class(self, key: int, name: str | None = None, color: str | None = None) -> None:
        """Give a class another name or another color, `#rrggbb`."""
        with self._lock:
            new = old = self.find_class(key)
            if name is not None and name.strip() != old.name:
                new = new._replace(name=self._check_name(name))
            if color is not None:
                new = new._replace(color=_check_color(color))
            if new != old:
                classes = tuple(new if each.key == key else each for each in self.classes)
                self._change(f"changed the class {old.name}", self._state._replace(classes=classes))

    def remove_class(self, key: int) -> None:
        """Remove a class and its examples."""
        with self._lock:
            removed = self.find_class(key)
            classes = tuple(each for each in self.classes if each.key != key)
            examples = tuple(each for each in self.examples if each.of_class != key)
            after = self._state._replace(classes=classes, examples=examples)
            self._change(f"removed the class {removed.name}", after)

    def add(self, key: int, new: Sequence[NewExample]) -> list[Example]:
        """Add examples to a class, all or none. Pictures of one recording of a camera are one change."""
        with self._lock:
            self.check_room(len(new), _num_bytes(new))
            state, of_class = self._state, self.find_class(key)
            added = [self._keep(number, key, each) for number, each in enumerate(new, start=state.next_key)]
            after = state._replace(examples=(*state.examples, *added), next_key=state.next_key + len(new))
            burst = new[0].burst if new else ""
            goes_on = bool(burst and self._history and self._history[-1].burst == burst)
            goes_on = goes_on and state.examples[-1].of_class == key
            since = self._history[-1].before if goes_on else state
            count = len(after.examples) - len(since.examples)
            self._change(f"added {counted(count, 'example')} to {of_class.name}", after, burst, goes_on)
        return added

    def add_labelled(self, of_label: Mapping[str, Sequence[NewExample]]) -> None:
        """Add examples of several classes, which are created if they do not exist, all or none, as one change."""
        with self._lock:
            self.check_room(sum(map(len, of_label.values())), 0)
            state = self._state
            keys, next_key = {each.name: each.key for each in state.classes}, state.next_key
            classes, examples = list(state.classes), []
            for label in of_label:
                if label not in keys:
                    keys[label] = next_key
                    classes.append(Class(next_key, self._check_name(label), _free_color(classes)))
                    next_key += 1
            if len(classes) > MOST_CLASSES:
                raise InputError(f"{len(classes):,} classes, at most {MOST_CLASSES} are allowed; nothing was added")
            for label, new in of_label.items():
                examples += [self._keep(number, keys[label], each) for number, each in enumerate(new, start=next_key)]
                next_key += len(new)
            after = State(tuple(classes), (*state.examples, *examples), next_key)
            self._change(
                f"added {counted(len(examples), 'example')} of {counted(len(of_label), 'class', 'classes')}", after
            )

    def check_room(self, count: int, num_bytes: int) -> None:
        """Raises `InputError` if so many more examples, or files of so many bytes, are too many."""
        if (there_are := len(self.examples)) + count > MOST_EXAMPLES:
            raise InputError(
                f"{counted(count, 'example')} cannot be added: there are {there_are:,}, and at most {MOST_EXAMPLES:,} "
                "are allowed"
            )
        if self._num_bytes + num_bytes > MOST_BYTES:
            raise InputError(
                f"{as_size(num_bytes)} cannot be added: there are {as_size(self._num_bytes)}, and at most "
                f"{as_size(MOST_BYTES)} are allowed; “Permanently delete removed items” can make room"
            )

    def remove(self, keys: Iterable[int]) -> None:
        """Remove examples."""
        removed = set(keys)
        with self._lock:
            kept = tuple(each for each in self.examples if each.key not in removed)
            if not (count := len(self.examples) - len(kept)):
                raise InputError("there is no example to remove")
            self._change(f"removed {counted(count, 'example')}", self._state._replace(examples=kept))

    def undo(self) -> str:
        """Take back the last change; returns what it was."""
        with self._lock:
            if not self._history:
                raise InputError("there is nothing to undo")
            what, before, _ = self._history[-1]
            # Keys are never used twice: the file of an example that is taken back may still be there.
            before = before._replace(next_key=self._state.next_key)
            self._write(before)
            self._state = before
            self._history.pop()
        return what

    def forget(self) -> int:
        """Delete the files of removed examples for good, which can then not be undone; returns how many they were."""
        with self._lock:
            self._history.clear()
            used = {example.content for example in self.examples}
            unused = [file for file in (self.folder / FILES).glob("*") if file.name not in used]
            for file in unused:
                self._num_bytes -= file.stat().st_size
                file.unlink()
        return len(unused)

    # The folder

    def copy_to(self, folder: Path) -> None:
        """Write the project to a new folder."""
        (folder / FILES).mkdir(parents=True)
        with self._lock:
            for name in reversed(self._files()):  # last the file that makes it a project
                shutil.copyfile(self.folder / name, folder / name)

    def write_zip(self, path: Path) -> None:
        """Write the project as one file."""
        with self._lock, zipfile.ZipFile(path, "w") as archive:
            for name in self._files():
                archive.write(self.folder / name, name)

    def _files(self) -> list[str]:
        """The files of the project in its folder, without those of removed examples."""
        of_examples = [] if self.modality_name == "text" else self.examples
        return [PROJECT_FILE, TABLE_FILE, *(f"{FILES}/{example.content}" for example in of_examples)]

    def _change(self, what: str, after: State, burst: str = "", goes_on: bool = False) -> None:
        """Go over to another state; `what` was done, perhaps going on with the last change."""
        self._write(after)
        before = self._history.pop().before if goes_on else self._state
        self._history.append(_Change(what, before, burst))
        self._state = after

    def _keep(self, number: int, key: int, new: NewExample) -> Example:
        """Write the file of a new example; returns the example."""
        if isinstance(new.content, str) != (self.modality_name == "text"):
            raise InputError(f"{new.name}: not an example of this project, which holds {self.modality_name} examples")
        if isinstance(new.content, str):
            content, digest = new.content, hashlib.sha256(new.content.encode())
        else:
            content, digest = f"{number}{new.suffix}", hashlib.sha256(new.content)
            file = self.folder / FILES / content
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(new.content)
            self._num_bytes += len(new.content)
        return Example(number, key, content, new.name, digest.hexdigest()[:32], new.burst)

    def _write(self, state: State) -> None:
        lines = io.StringIO()
        table = csv.writer(lines)
        table.writerow([self.modality_name, "label", "name"])
        prefix = "" if self.modality_name == "text" else f"{FILES}/"
        for example, label in zip(state.examples, state.labels(), strict=True):
            table.writerow([f"{prefix}{example.content}", label, example.name])
        write_text(self.folder / TABLE_FILE, lines.getvalue())
        record = {
            "modality": self.modality_name,
            "classes": [list(each) for each in state.classes],
            "examples": [list(each) for each in state.examples],
            "next_key": state.next_key,
        }
        write_json(self.folder / PROJECT_FILE, record)  # last: it is what is read

    def _check_name(self, name: str) -> str:
        name = " ".join(name.split())
        if not name:
            raise InputError("a class needs a name")
        if len(name) > LONGEST_NAME:
            raise InputError(f"{name[:20]}…: the name has {len(name)} characters, at most {LONGEST_NAME} are allowed")
        if name in (each.name for each in self.classes):
            raise InputError(f"{name}: there is already a class with this name")
        return name

    def _free_name(self) -> str:
        names = {each.name for each in self.classes}
        return next(name for number in range(1, MOST_CLASSES + 2) if (name := f"Class {number}") not in names)


def _free_color(classes: Iterable[Class]) -> str:
    """The color that the fewest classes have."""
    used = [each.color for each in classes]
    return min(COLORS, key=used.count)


def _read(folder: Path) -> tuple[str, State, int]:
    """The modality and the state of a project, and how many examples it lacks, since their files are missing.

    Raises `InputError` if it cannot be read.
    """
    try:
        modality_name, state = parse_project((folder / PROJECT_FILE).read_text(encoding="utf-8"))
    except (OSError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{folder / PROJECT_FILE}: cannot be read ({first_line(error)})") from None
    files = {file.name for file in (folder / FILES).glob("*")}
    kept = tuple(each for each in state.examples if modality_name == "text" or each.content in files)
    return modality_name, state._replace(examples=kept), len(state.examples) - len(kept)


def parse_project(text: str) -> tuple[str, State]:
    """The modality and the state that the text of a project file describes.

    Raises `ValueError`, `KeyError`, `TypeError` or `OverflowError` if it is malformed.
    """
    record = json.loads(text)
    classes = tuple(Class(int(key), str(name), _check_color(color)) for key, name, color in record["classes"])
    examples = tuple(Example(int(key), int(of), *map(str, others)) for key, of, *others in record["examples"])
    if record["modality"] not in ("image", "audio", "text"):
        raise ValueError(f"unknown modality {record['modality']}")
    if record["modality"] != "text":
        for example in examples:
            if not re.fullmatch(r"\d+\.[a-z0-9]{2,5}", example.content):
                raise ValueError(f"unexpected file name {example.content}")
    if len(examples) > MOST_EXAMPLES or len(classes) > MOST_CLASSES:
        raise ValueError(f"more than {MOST_EXAMPLES:,} examples or {MOST_CLASSES} classes")
    if {example.of_class for example in examples} - {each.key for each in classes}:
        raise ValueError("an example of an unknown class")
    return record["modality"], State(classes, examples, int(record["next_key"]))


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 example`, `2 examples`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"


def as_size(num_bytes: int) -> str:
    """`7 KB`, `512 MB`."""
    return f"{num_bytes / 2**10:,.0f} KB" if num_bytes < 2**20 else f"{num_bytes / 2**20:,.0f} MB"


def _num_bytes(new: Iterable[NewExample]) -> int:
    """How much the files of new examples take."""
    return sum(len(each.content) for each in new if isinstance(each.content, bytes))


def _check_color(color: str) -> str:
    if not _COLOR.fullmatch(color):
        raise InputError(f"{color}: not a color, expected #rrggbb")
    return color
