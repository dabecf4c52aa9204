"""What visitors do with their project. Each function returns what was done, in a sentence, or raises `InputError`.

It is called with the visit, the kind of examples and the key of the chosen class, and with what the visitor has typed
or chosen. Those that open another project take no kind and class, and return the kind of that project.
"""

from collections.abc import Sequence
from pathlib import Path

from toolkit.app import uploads
from toolkit.app.messages import warn
from toolkit.app.project import counted
from toolkit.app.visits import Visit
from toolkit.errors import InputError


def nothing(visit: Visit, kind: str, chosen: int | None) -> None:
    """Only show the project."""


def undo(visit: Visit, kind: str, chosen: int | None) -> str:
    return f"Undone: {visit.undo(kind)}."


def add_class(visit: Visit, kind: str, chosen: int | None, name: str) -> str:
    return f"Added the class {visit.project(kind).add_class(name or None).name}."


def change_class(visit: Visit, kind: str, chosen: int | None, name: str, color: str) -> str:
    visit.project(kind).change_class(needed(chosen), name, as_hex(color))
    return "Changed the class."


def remove_class(visit: Visit, kind: str, chosen: int | None) -> str:
    visit.project(kind).remove_class(needed(chosen))
    return "Removed the class. Undo brings it back."


def remove_example(visit: Visit, kind: str, chosen: int | None, picked: int | None) -> str:
    if picked is None:
        raise InputError("choose an example first")
    visit.project(kind).remove([picked])
    return "Removed the example. Undo brings it back."


def remove_examples(visit: Visit, kind: str, chosen: int | None) -> str:
    project = visit.project(kind)
    project.remove(example.key for example in project.of_class(needed(chosen)))
    return "Removed all examples of the class. Undo brings them back."


def add_files(visit: Visit, kind: str, chosen: int | None, paths: Sequence[str]) -> str:
    """Add uploaded files; the reasons why some cannot be added are shown."""
    visit.note_uploads(paths)
    project, of_class = visit.project(kind), needed(chosen)
    files = [(Path(path), Path(path).name) for path in paths]
    found, reasons = uploads.read_files(files, uploads.READERS[kind], project.check_room)
    if found:
        project.add(of_class, found)
    if reasons:
        warn(uploads.summary_of(reasons))
    added = counted(len(found), "example")
    return f"Added {added} from {counted(len(paths), 'file')}." if reasons else f"Added {added}."


def add_recording(visit: Visit, kind: str, chosen: int | None, path: str | None) -> str | None:
    if path is None:
        return None
    visit.note_uploads([path])
    visit.project(kind).add(needed(chosen), [uploads.read_recording(Path(path), "microphone")])
    return "Added the recording."


def add_texts(visit: Visit, kind: str, chosen: int | None, text: str) -> str:
    found = uploads.read_texts(text or "")
    if not found:
        raise InputError("type a text first, one on each line")
    visit.project(kind).add(needed(chosen), found)
    return f"Added {counted(len(found), 'text')}."


def add_table(visit: Visit, kind: str, chosen: int | None, text: str) -> str:
    of_label = uploads.read_table(text or "")
    if not of_label:
        raise InputError("paste lines of a text, a tab and a label first")
    visit.project(kind).add_labelled(of_label)
    texts = counted(sum(map(len, of_label.values())), "text")
    return f"Added {texts} of {counted(len(of_label), 'class', 'classes')}."


def save(visit: Visit, kind: str, chosen: int | None, name: str, overwrite: bool) -> str:
    visit.save(kind, name or "", overwrite)
    return f"Saved the project as {name.strip()}."


def open_saved(visit: Visit, name: str | None) -> str:
    if not name:
        raise InputError("choose a saved project first")
    return visit.open_saved(name)


def open_file(visit: Visit, path: str | None) -> str:
    if not path:
        raise InputError("choose a file first")
    visit.note_uploads([path])
    return visit.open_file(Path(path))


def delete_saved(visit: Visit, kind: str, chosen: int | None, name: str | None) -> str:
    if not name:
        raise InputError("choose a saved project first")
    visit.delete_saved(name)
    return f"Deleted the project {name}. It can be restored until you permanently delete removed items."


def restore_saved(visit: Visit, kind: str, chosen: int | None) -> str:
    return f"Restored the project {visit.restore_saved()}."


def start_again(visit: Visit, kind: str, chosen: int | None) -> str:
    visit.start_again(kind)
    return "This is an empty project. Undo brings back the one before."


def forget(visit: Visit, kind: str, chosen: int | None) -> str:
    return f"Permanently deleted {counted(visit.forget(), 'file')}."


def delete_all(visit: Visit, kind: str, chosen: int | None, is_sure: bool) -> str:
    if not is_sure:
        raise InputError("this cannot be undone: tick “I am sure” first")
    visit.delete_everything()
    return "Deleted all your data."


def needed(chosen: int | None) -> int:
    """The key of the chosen class. Raises `InputError` if there is none."""
    if chosen is None:
        raise InputError("add a class first")
    return chosen


def as_hex(color: str) -> str:
    """`#rrggbb` of what a color picker gives, such as `rgba(255, 0, 0, 1)`."""
    if not color.startswith("rgb"):
        return color
    numbers = color.partition("(")[2].rstrip(")").split(",")[:3]
    return "#" + "".join(f"{round(float(number)):02x}" for number in numbers)
