"""What visitors get from their project: a classifier, its answers and their reasons, and files to take away."""

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from toolkit.app import rendering, uploads
from toolkit.app.archive import write_archive
from toolkit.app.explanation import explain
from toolkit.app.messages import warn
from toolkit.app.project import NewExample
from toolkit.app.thumbnails import A_SCREEN, pictures_of
from toolkit.app.visits import Visits
from toolkit.errors import InputError
from toolkit.modalities.waveforms import window_of

PROGRESS = gr.Progress()
QUIET = 0.1  # times the amplitude of the quietest example
Tried = tuple[str, Any]  # the kind and the example that was tried last


class Answers:
    """Answers to the visitors of a page: new values of its components.

    The methods that try an example are called with the kind of examples first, which their component is for.
    """

    def __init__(self, visits: Visits):
        self.visits = visits

    def learn(self, request: gr.Request, visitor: str, kind: str, progress=PROGRESS) -> Iterator[Any]:
        """Train, and show how good it is: by prototypes at once, then with a linear layer.

        A visitor who has turned to another project meanwhile sees it when coming back.
        """
        visit, emptied = self.visits.visit(visitor)[1], no_answers()
        try:
            for learned in visit.learn(kind, lambda share, what: progress(share, desc=what)):
                if not visit.shows(request.session_hash, learned):
                    yield gr.skip()
                    continue
                confused = learned.confused[:A_SCREEN]
                captions = [f"{label}, taken for {predicted}" for _, label, predicted in confused]
                pictures = pictures_of(learned.project, [example for example, *_ in confused], captions)
                gallery = gr.Gallery(pictures, visible=bool(pictures))
                yield rendering.status("Trained.", False), rendering.report(learned), gallery, *emptied
                emptied = [gr.skip()] * len(emptied)
        except InputError as error:
            warn(str(error))
            yield gr.skip()

    def try_file(self, kind: str, visitor: str, path: str) -> tuple[Any, ...]:
        self.visits.visit(visitor)[1].note_uploads([path])
        answer = self._try(kind, visitor, lambda: uploads.READERS[kind](Path(path), Path(path).name))
        return *answer, *_no_reason(), None

    def try_text(self, visitor: str, text: str) -> tuple[Any, ...]:
        answer = self._try("text", visitor, lambda: next(iter(uploads.read_texts(text or "")), None))
        return *answer, *_no_reason()

    def try_text_again(self, visitor: str, kind: str, text: str) -> tuple[Any, ...]:
        """The new answer for the text that is there, after training."""
        return self.try_text(visitor, text) if kind == "text" and text else (gr.skip(),) * 5

    def try_frame(self, visitor: str, frame: np.ndarray | None) -> tuple[Any, ...]:
        return self._try("image", visitor, lambda: None if frame is None else uploads.image_of(frame, "camera"))

    def try_sound(self, visitor: str, piece: Any, heard: Any) -> tuple[Any, ...]:
        """The answer for what the microphone has heard last, as long as the encoder reads.

        There is none while all is much quieter than the examples, as volume is normalized before an encoder reads it.
        """
        if piece is None:
            return "", "", None, None
        rate, samples = piece
        samples = samples if heard is None else np.concatenate([heard, samples])
        samples = samples[-round(window_of(self.visits.learners["audio"].featurizer.processor) * rate) :]
        visit = self.visits.visit(visitor)[1]
        learned = visit.learned("audio")
        if learned is not None and uploads.amplitude_of(samples) < QUIET * learned.quietest:
            return rendering.status("It is quiet.", False), "", None, samples
        answer = self._try("audio", visitor, lambda: uploads.recording_of(rate, samples, "microphone"))
        return *answer, samples

    def explain(self, visitor: str, kind: str, tried: Tried | None) -> tuple[Any, Any]:
        """What counted for the answer."""
        if tried is None or tried[0] != kind:
            raise InputError("try an example first")
        picture, words = explain(self.visits.visit(visitor)[1].trained(kind).classifier, tried[1])
        return gr.Image(picture, visible=picture is not None), words

    def download(self, visitor: str, kind: str, with_examples: bool) -> Any:
        """Write the classifier as one file."""
        visit = self.visits.visit(visitor)[1]
        file = visit.temporary_file("classifier.zip")
        for sentence in write_archive(visit.trained(kind), file, with_examples):
            warn(sentence)
        return gr.DownloadButton(value=str(file), visible=True)

    def push(self, visitor: str, kind: str, repo_id: str, private: bool) -> str:
        """Push the classifier to a Hub."""
        address = self.visits.visit(visitor)[1].trained(kind).classifier.push_to_hub(repo_id or "", private)
        return f'<p role="status">Pushed to <a href="{escape(address)}">{escape(address)}</a>.</p>'

    def export_project(self, visitor: str, kind: str) -> Any:
        """Write the project as one file."""
        visit = self.visits.visit(visitor)[1]
        file = visit.temporary_file("project.zip")
        visit.project(kind).write_zip(file)
        return gr.DownloadButton(value=str(file), visible=True)

    def _try(self, kind: str, visitor: str, read: Callable[[], NewExample | None]) -> tuple[str, str, Tried | None]:
        """The label of what `read` returns, or why there is none, the bars, and the example, to be explained."""
        visit = self.visits.visit(visitor)[1]
        try:
            new = read()
            if new is None:
                return "", "", None
            item = new.content if isinstance(new.content, str) else {"bytes": new.content, "path": None}
            classifier = visit.trained(kind).classifier
            (label,), (probabilities,) = classifier.predict_with_proba([item])
        except InputError as error:
            return rendering.status(str(error), False), "", None
        picture = classifier.modality.thumbnail({kind: item, "name": ""})
        names, classes = classifier.classes_.tolist(), visit.project(kind).classes
        return rendering.heading(label), rendering.bars(classes, names, probabilities, label, picture), (kind, item)


def no_answers() -> list[Any]:
    """New values of the components of what a classifier has answered: two files, a picture, and five others."""
    files = [gr.DownloadButton(value=None, visible=False) for _ in range(2)]
    return [*files, gr.Image(value=None, visible=False), *[None] * 5]


def _no_reason() -> tuple[Any, str]:
    """New values of the components of a reason: another example is answered."""
    return gr.Image(value=None, visible=False), ""
