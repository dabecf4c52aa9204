"""What visitors get from their project: a classifier, its answers and their reasons, and files to take away."""

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from toolkit.app import shown, uploads
from toolkit.app.messages import warn
from toolkit.app.project import NewExample
from toolkit.app.take_away import write_take_away
from toolkit.app.thumbnails import A_SCREEN, pictures_of
from toolkit.app.visits import Visits
from toolkit.app.why import why as why_so
from toolkit.errors import InputError, RunFailed
from toolkit.modalities.waveforms import window_of

PROGRESS = gr.Progress()
Tried = tuple[str, Any]  # the kind and the example that was tried last


class Answers:
    """Answers to the visitors of a page: new values of its components.

    The methods that try an example are called with the kind of examples first, which their component is for.
    """

    def __init__(self, visits: Visits):
        self.visits = visits

    def learn(self, visitor: str, kind: str, progress=PROGRESS) -> Iterator[tuple[Any, ...]]:
        """Train, and show how good it is: by prototypes at once, then with a linear layer."""
        visit, learned = self.visits.visit(visitor)[1], None
        try:
            for learned in visit.learn(kind, lambda share, what: progress(share, desc=what)):
                some = learned.confused[:A_SCREEN]
                captions = [f"{label}, taken for {predicted}" for _, label, predicted in some]
                confused = pictures_of(learned.project, [example for example, *_ in some], captions)
                gallery = gr.Gallery(confused, visible=bool(confused))
                yield shown.status("Trained.", False), shown.report(learned), gallery, "", None
        except InputError as error:
            warn(str(error))
            if learned is None:
                yield (gr.skip(),) * 5

    def try_file(self, kind: str, visitor: str, path: str) -> tuple[Any, Any, None]:
        self.visits.visit(visitor)[1].note_uploads([path])
        answer = self._try(kind, visitor, lambda: uploads.READERS[kind](Path(path), Path(path).name))
        return *answer, None

    def try_text(self, visitor: str, text: str) -> tuple[Any, Any]:
        return self._try("text", visitor, lambda: next(iter(uploads.read_texts(text or "")), None))

    def try_frame(self, visitor: str, frame: np.ndarray | None) -> tuple[Any, Any]:
        return self._try("image", visitor, lambda: None if frame is None else uploads.image_of(frame, "camera"))

    def try_sound(self, visitor: str, piece: Any, heard: Any) -> tuple[Any, Any, Any]:
        """The answer for what the microphone has heard last, as long as the encoder reads."""
        if piece is None:
            return "", None, None
        rate, samples = piece
        samples = samples if heard is None else np.concatenate([heard, samples])
        samples = samples[-round(window_of(self.visits.learners["audio"].featurizer.processor) * rate) :]
        answer = self._try("audio", visitor, lambda: uploads.recording_of(rate, samples, "microphone"))
        return *answer, samples

    def why(self, visitor: str, kind: str, tried: Tried | None) -> tuple[Any, Any]:
        """What counted for the answer."""
        try:
            if tried is None or tried[0] != kind:
                raise InputError("try an example first")
            picture, words = why_so(self.visits.visit(visitor)[1].needed(kind).classifier, tried[1])
        except InputError as error:
            warn(str(error))
            return gr.skip(), gr.skip()
        return gr.Image(picture, visible=picture is not None), words

    def take(self, visitor: str, kind: str) -> Any:
        """Write what a visitor takes away."""
        visit = self.visits.visit(visitor)[1]
        try:
            file = visit.temporary_file("classifier.zip")
            for sentence in write_take_away(visit.needed(kind), file):
                warn(sentence)
            return gr.DownloadButton(value=str(file), visible=True)
        except InputError as error:
            warn(str(error))
            return gr.skip()

    def push(self, visitor: str, kind: str, repo_id: str, private: bool) -> Any:
        """Push the classifier to a Hub."""
        try:
            address = self.visits.visit(visitor)[1].needed(kind).classifier.push_to_hub(repo_id or "", private)
        except (InputError, RunFailed) as error:
            warn(str(error))
            return gr.skip()
        return f'<p role="status">Pushed to <a href="{escape(address)}">{escape(address)}</a>.</p>'

    def export_project(self, visitor: str, kind: str) -> Any:
        """Write the project as one file."""
        visit = self.visits.visit(visitor)[1]
        file = visit.temporary_file("project.zip")
        visit.project(kind).write_zip(file)
        return gr.DownloadButton(value=str(file), visible=True)

    def _try(self, kind: str, visitor: str, read: Callable[[], NewExample | None]) -> tuple[Any, Tried | None]:
        """The answer for what `read` returns, or why there is none, and the example, to be explained."""
        visit = self.visits.visit(visitor)[1]
        try:
            new = read()
            if new is None:
                return "", None
            item = new.content if isinstance(new.content, str) else {"bytes": new.content, "path": None}
            classifier = visit.needed(kind).classifier
            (label,), (probabilities,) = classifier.predict_with_proba([item])
        except InputError as error:
            return shown.status(str(error), False), None
        picture = classifier.modality.thumbnail({kind: item, "name": ""})
        names, classes = classifier.classes_.tolist(), visit.project(kind).classes
        return shown.bars(classes, names, probabilities, label, picture), (kind, item)
