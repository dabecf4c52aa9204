"""Who visits the page: each browser has projects of its own, in a folder that it comes back to.

FOLDER/secret                      encrypts what a browser keeps, so that it stays readable when the server restarts
FOLDER/.toolkit-app-uploads/       what the server keeps for as long as it runs: uploads, files to download
FOLDER/visitors/ID/current.json    which draft is the project of each kind of examples, which ones were before it, and
                                   which saved projects were deleted
FOLDER/visitors/ID/drafts/N/       these projects
FOLDER/visitors/ID/saved/NAME/     projects that were saved by name
FOLDER/visitors/ID/removed/N/      saved projects that were deleted
FOLDER/visitors/ID/unreadable/N/   drafts whose project file somebody has damaged
"""

import hashlib
import json
import re
import secrets
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from toolkit.app import UPLOADS
from toolkit.app.learner import Learned, Learner
from toolkit.app.project import Project, counted
from toolkit.app.uploads import read_project
from toolkit.errors import InputError
from toolkit.runs.output import write_json, write_text

_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[\w][\w .,()+-]{0,59}")  # of a project, which is the name of a folder
DRAFTS, SAVED, REMOVED, UNREADABLE, CURRENT = "drafts", "saved", "removed", "unreadable", "current.json"


class Visit:
    """What one visitor does: a project of each kind, and what was learned from it."""

    def __init__(self, folder: Path, uploads: Path, learners: dict[str, Learner]):
        self.folder, self.uploads, self.learners = folder, uploads, learners
        self.troubles: list[str] = []  # what a project lacks, or why it cannot be opened, until it has been said
        self._shown: dict[str | None, tuple[str, str]] = {}  # of each session: a kind, and the folder of its project
        self._projects: dict[str, Project] = {}
        self._drafts: dict[str, Project] = {}  # all that were opened, by the names of their folders
        self._earlier: defaultdict[str, list[str]] = defaultdict(list)  # drafts that were worked on before
        self._deleted: list[list[str]] = []  # saved projects: the name, and the folder in `removed`
        self._learned: dict[str, Learned] = {}
        self._uploaded: set[Path] = set()
        self._downloads: list[Path] = []
        self._num_deletions = 0
        self._lock = threading.RLock()
        if (folder / CURRENT).is_file():
            self._resume(json.loads((folder / CURRENT).read_text(encoding="utf-8")))

    def project(self, kind: str) -> Project:
        """The project of a kind that is worked on."""
        with self._lock:
            if kind not in self._projects:
                self._work_on(Project(self._new_folder(DRAFTS), kind))
            return self._projects[kind]

    def undo(self, kind: str) -> str:
        """Take back the last change of the project, or that another one took its place; returns what it was.

        A project with classes that is replaced in this way becomes the earliest one, so that no project is lost.
        """
        with self._lock:
            project, earlier = self.project(kind), self._earlier[kind]
            if project.has_history or not earlier:
                return project.undo()
            previous = self._draft(earlier[-1])
            earlier.pop()
            if project.classes:
                earlier.insert(0, project.folder.name)
            self._work_on(previous)
        return "back to the previous project"

    def note_uploads(self, paths: Iterable[str]) -> None:
        """Remember files that the visitor has uploaded, so that they can be deleted."""
        self._uploaded.update(map(Path, paths))

    def temporary_file(self, name: str) -> Path:
        """The path of a file to download, in a new folder."""
        self.uploads.mkdir(exist_ok=True)
        self._downloads.append(Path(tempfile.mkdtemp(dir=self.uploads)))
        return self._downloads[-1] / name

    def forget(self) -> int:
        """Delete for good what was removed, which can then not be undone; returns how many files were deleted."""
        with self._lock:
            before = sum(path.is_file() for path in self.folder.rglob("*"))
            self._earlier.clear()
            self._deleted.clear()
            self._drafts = {project.folder.name: project for project in self._projects.values()}
            self._write_current()
            for project in self._projects.values():
                project.forget()
            used = {project.folder for project in self._projects.values()}
            for folder in (self.folder / DRAFTS).glob("*"):
                if folder not in used:
                    shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(self.folder / REMOVED, ignore_errors=True)
            self._delete_copies()
            return before - sum(path.is_file() for path in self.folder.rglob("*"))

    def delete_everything(self) -> None:
        """Delete all that this visitor has given, for good."""
        with self._lock:
            (self.folder / CURRENT).unlink(missing_ok=True)  # first: without it the rest is not opened again
            self._delete_copies()
            for remembered in (self._projects, self._drafts, self._earlier, self._deleted):
                remembered.clear()
            shutil.rmtree(self.folder, ignore_errors=True)

    # What is shown

    def show(self, session: str | None, kind: str) -> bool:
        """Remember that a session shows the project of a kind; returns whether it has shown it before."""
        shown = kind, self.project(kind).folder.name
        before, self._shown[session] = self._shown.get(session), shown
        return before == shown

    def shows(self, session: str | None, learned: Learned) -> bool:
        """Whether a session shows the project of which something was learned."""
        return self._shown.get(session) == (learned.project.modality_name, learned.project.folder.name)

    # Learning

    def learn(self, kind: str, say: Callable[[float, str], Any]) -> Iterator[Learned]:
        """Learn the project; see `Learner.learn`."""
        project, num_deletions = self.project(kind), self._num_deletions
        for learned in self.learners[kind].learn(project, say):
            with self._lock:
                # No other project was opened meanwhile, and nothing was deleted for good.
                if project is self._projects.get(kind) and num_deletions == self._num_deletions:
                    self._learned[kind] = learned
            yield learned

    def learned(self, kind: str) -> Learned | None:
        """What was learned of the project; None before."""
        return self._learned.get(kind)

    def trained(self, kind: str) -> Learned:
        """What was learned. Raises `InputError` before."""
        if kind not in self._learned:
            raise InputError("train first")
        return self._learned[kind]

    # Saved projects

    def saved(self) -> list[str]:
        """The names of the saved projects."""
        folder = self.folder / SAVED
        return sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []

    def save(self, kind: str, name: str, overwrite: bool = False) -> None:
        """Save the project by name. Raises `InputError` if there is one of that name, unless `overwrite`."""
        folder = self._saved_folder(name)
        if folder.exists() and not overwrite:
            raise InputError(
                f"{folder.name}: there is already a project with this name; choose another, or tick Replace"
            )
        copied = self._new_folder(DRAFTS)
        self.project(kind).copy_to(copied)
        if folder.exists():
            self.delete_saved(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        copied.rename(folder)

    def open_saved(self, name: str) -> str:
        """Go on with a saved project in place of the one of its kind; returns the kind."""
        draft = self._new_folder(DRAFTS)
        self._opened(self._existing(name)).copy_to(draft)
        return self._begin(Project(draft))

    def open_file(self, path: Path) -> str:
        """Go on with a project that is one file; returns its kind."""
        return self._begin(read_project(path, self._new_folder(DRAFTS)))

    def start_again(self, kind: str) -> None:
        """Begin an empty project of a kind."""
        self._begin(Project(self._new_folder(DRAFTS), kind))

    def delete_saved(self, name: str) -> None:
        """Delete a saved project, which `restore_saved` brings back."""
        folder, removed = self._existing(name), self._new_folder(REMOVED)
        removed.parent.mkdir(exist_ok=True)
        with self._lock:
            self._deleted.append([folder.name, removed.name])
            self._write_current()
            folder.rename(removed)

    def restore_saved(self) -> str:
        """Bring back the saved project that was deleted last; returns its name, which is a new one if its is taken."""
        with self._lock:
            if not self._deleted:
                raise InputError("no saved project was deleted")
            name, removed = self._deleted.pop()
            names = (name, *(f"{name[:50]} ({number})" for number in range(2, 1000)))
            name = next(each for each in names if not (self.folder / SAVED / each).exists())
            (self.folder / REMOVED / removed).rename(self.folder / SAVED / name)
            self._write_current()
        return name

    def _begin(self, project: Project) -> str:
        kind = project.modality_name
        with self._lock:
            self._earlier[kind].append(self.project(kind).folder.name)
            self._work_on(project)
        return kind

    def _draft(self, name: str) -> Project:
        if name not in self._drafts:
            self._drafts[name] = self._opened(self.folder / DRAFTS / name)
        return self._drafts[name]

    def _opened(self, folder: Path) -> Project:
        """The project of a folder; what it lacks becomes a trouble."""
        project = Project(folder)
        if project.num_lost:
            count = counted(project.num_lost, "example")
            self.troubles.append(f"Files are missing in {folder}, so {count} of this project cannot be shown.")
        return project

    def _work_on(self, project: Project) -> None:
        self._drafts[project.folder.name] = self._projects[project.modality_name] = project
        self._learned.pop(project.modality_name, None)
        self._write_current()

    def _write_current(self) -> None:
        drafts = {kind: project.folder.name for kind, project in self._projects.items()}
        write_json(self.folder / CURRENT, {"drafts": drafts, "earlier": self._earlier, "deleted": self._deleted})

    def _resume(self, current: dict[str, Any]) -> None:
        for kind, name in current["drafts"].items():
            try:
                self._projects[kind] = self._draft(name)
            except InputError as error:
                draft, unreadable = self.folder / DRAFTS / name, self.folder / UNREADABLE / name
                if draft.is_dir():
                    unreadable.parent.mkdir(exist_ok=True)
                    draft.rename(unreadable)
                self.troubles.append(f"{error}. What there is of it is now in {unreadable}.")
        self._earlier.update(current["earlier"])
        self._deleted = current["deleted"]

    def _delete_copies(self) -> None:
        """Delete uploads, files to download, what was learned, and what was read for it."""
        self._num_deletions += 1
        self._learned.clear()
        self._shown.clear()
        for learner in self.learners.values():
            learner.featurizer.forget()
        for path in self._uploaded:
            path.unlink(missing_ok=True)
        self._uploaded.clear()
        for folder in self._downloads:
            shutil.rmtree(folder, ignore_errors=True)
        self._downloads.clear()

    def _new_folder(self, of: str) -> Path:
        return self.folder / of / secrets.token_hex(4)

    def _existing(self, name: str) -> Path:
        folder = self._saved_folder(name)
        if not folder.is_dir():
            raise InputError(f"{name}: there is no saved project with this name")
        return folder

    def _saved_folder(self, name: str) -> Path:
        name = name.strip()
        if not _NAME.fullmatch(name):
            raise InputError(
                f"“{name[:60]}”: expected a name of up to 60 letters, digits, spaces and .,()+- that begins with a "
                "letter or digit"
            )
        return self.folder / SAVED / name


class Visits:
    """The visits of all browsers.

    Args:
        folder: Where they keep their projects.
        learners: The learner of each kind of examples.
    """

    def __init__(self, folder: Path, learners: dict[str, Learner]):
        self.folder, self.learners = folder, learners
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    @property
    def browser_secret(self) -> str:
        """What encrypts the key that a browser keeps. It is sent to all browsers, so no key is derived from it."""
        return hashlib.sha256(f"browser {self._secret}".encode()).hexdigest()

    @property
    def _secret(self) -> str:
        """The same at every start."""
        file = self.folder / "secret"
        if not file.is_file():
            write_text(file, secrets.token_urlsafe(24))
            file.chmod(0o600)
        return file.read_text(encoding="utf-8")

    def visit(self, key: str | None, session: str | None = None) -> tuple[str, Visit]:
        """The visit of a browser, and its key.

        A browser that comes for the first time has no key. Until it has been given one, all that it asks for in a
        `session` belongs to one visit.
        """
        if key is None or not _ID.fullmatch(key):
            key = hashlib.sha256(f"{self._secret} {session or secrets.token_hex()}".encode()).hexdigest()[:32]
        with self._lock:
            if key not in self._visits:
                self._visits[key] = Visit(self.folder / "visitors" / key, self.folder / UPLOADS, self.learners)
            return key, self._visits[key]
