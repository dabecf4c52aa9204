"""The page: what visitors see, and what happens when they do something."""

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from toolkit.app import actions, rendering, uploads
from toolkit.app.answers import Answers, no_answers
from toolkit.app.archive import NUM_CHECKED
from toolkit.app.lessons_page import build_lessons
from toolkit.app.messages import REFUSALS, reason_of, warn, with_warnings
from toolkit.app.project import MOST_BYTES, MOST_CLASSES, MOST_EXAMPLES, as_size, counted
from toolkit.app.thumbnails import A_SCREEN, PICTURE_BUTTONS, SOUND_BUTTONS, choices_of, pictures_of, sound_of
from toolkit.app.visits import Visits
from toolkit.modalities.waveforms import window_of

TITLE = "Teach a classifier"
NAMES = {"image": "Images", "audio": "Sounds", "text": "Texts"}
# Screen readers say what changes in these components.
ANNOUNCE = """() => {
  for (const id of ["status", "label", "report", "pushed"])
    document.querySelector(`#${id} .html-container`).setAttribute("role", "status");
}"""
FRAMES_A_REFRESH, NEW_RECORDING = 8, 2.0  # of a camera: between two refreshes of the gallery, and seconds without one
STORAGE_KEY = "toolkit-app"
CSS = (Path(__file__).parent / "teaching_page.css").read_text(encoding="utf-8")


class TeachingPage:
    """The page of a server.

    Args:
        visits: Who visits it.
        is_alone: Whether only the person who runs the server uses the page. Others may not push to a Hub under that
            account.
    """

    def __init__(self, visits: Visits, is_alone: bool):
        self.visits, self.is_alone = visits, is_alone

    def build(self) -> gr.Blocks:
        """The components and what they do."""
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
            self.visitor = gr.BrowserState(None, storage_key=STORAGE_KEY, secret=self.visits.browser_secret)
            where = " Nothing leaves this computer." if self.is_alone else ""
            gr.Markdown(f"# {TITLE}\nShow it examples of each class, train it and try it.{where}")
            with gr.Row():
                choices = [(name, kind) for kind, name in NAMES.items()]
                self.kind = gr.Radio(choices, value="image", label="What to classify", elem_id="kind")
                self.undo = gr.Button("Undo", elem_id="undo", min_width=120, scale=0)
            self.status = gr.HTML(elem_id="status")
            with gr.Tabs():
                with gr.Tab("Teach"):
                    self._build_examples()
                    self._build_training()
                    self._build_trying()
                    self._build_taking()
                with gr.Tab("Projects"):
                    self._build_projects()
                with gr.Tab("Lessons"):
                    build_lessons(self.visits, self.visitor, self.kind)
            self._connect(blocks)
        return blocks

    # What there is to see

    def _build_examples(self) -> None:
        gr.Markdown(
            f"## 1 Examples\nAt most {MOST_CLASSES} classes and {MOST_EXAMPLES:,} examples. Files may be up to "
            f"{as_size(uploads.MOST_BYTES_OF_FILE)}, recordings {uploads.LONGEST_SECONDS:.0f} seconds, texts "
            f"{uploads.LONGEST_TEXT:,} characters; all files of a project together {as_size(MOST_BYTES)}."
        )
        with gr.Row():
            with gr.Column(scale=1):
                self.chosen = _unchecked(gr.Radio([], label="Classes", elem_id="classes"))
                with gr.Row():
                    self.new_name = gr.Textbox(label="Name of a new class", elem_id="new-class", max_lines=1)
                    self.add_class = gr.Button("Add the class", elem_id="add-class")
                with gr.Accordion("Change the chosen class", open=False):
                    self.name = gr.Textbox(label="Its name", elem_id="class-name", max_lines=1)
                    self.color = gr.ColorPicker(label="Its color", elem_id="class-color")
                    self.change_class = gr.Button("Change", elem_id="change-class")
                    self.remove_class = gr.Button("Remove the class and its examples", elem_id="remove-class")
            with gr.Column(scale=2):
                self.uploads: list[tuple[str, gr.File]] = []
                self.adders = {kind: gr.Group(visible=kind == "image") for kind in NAMES}
                for kind, group in self.adders.items():
                    with group:
                        self._build_adder(kind)
                self.gallery = gr.Gallery(
                    label="Examples of the chosen class",
                    columns=8,
                    height=260,
                    elem_id="examples",
                    interactive=False,
                    visible=False,
                    buttons=PICTURE_BUTTONS,
                )
                self.texts = _unchecked(
                    gr.Radio([], label="Examples of the chosen class", elem_id="text-examples", visible=False)
                )
                self.player = gr.Audio(
                    label="The chosen example", visible=False, interactive=False, buttons=SOUND_BUTTONS
                )
                with gr.Row():
                    self.screen = _unchecked(gr.Slider(1, 2, 1, step=1, label="Page", visible=False))
                    self.remove_example = gr.Button("Remove the chosen example", elem_id="remove-example")
                    self.remove_examples = gr.Button("Remove all examples of the class", elem_id="remove-examples")
        self.picked, self.shown_keys, self.recording = gr.State(None), gr.State([]), gr.State(("", 0.0))

    def _build_adder(self, kind: str) -> None:
        if kind == "text":
            self.typed = gr.Textbox(label="Texts, one on each line", lines=3, elem_id="typed")
            self.add_texts = gr.Button("Add the texts to the chosen class", elem_id="add-texts")
            with gr.Accordion("Paste a table", open=False):
                self.table = gr.Textbox(label="One example per line: text, tab, label", lines=3, elem_id="table")
                self.add_table = gr.Button("Add the table", elem_id="add-table")
            return
        noun = "images" if kind == "image" else "recordings"
        with gr.Row():
            files = gr.File(label=f"Files: {noun}", file_count="multiple", elem_id=f"{kind}-files", height=140)
            folder = gr.File(label=f"A folder of {noun}", file_count="directory", elem_id=f"{kind}-folder", height=140)
        self.uploads += [(kind, files), (kind, folder)]
        if kind == "image":
            camera = "Camera: adds pictures while it is on"
            self.camera = gr.Image(
                sources=["webcam"], streaming=True, type="numpy", label=camera, elem_id="camera", buttons=[]
            )
        else:
            seconds = window_of(self.visits.learners["audio"].featurizer.processor)
            label = f"Microphone: only the first {seconds:.1f} seconds of sound are used"
            self.microphone = gr.Audio(
                sources=["microphone"], type="filepath", label=label, elem_id="microphone", buttons=[]
            )

    def _build_training(self) -> None:
        gr.Markdown("## 2 Train")
        self.train = gr.Button("Train", variant="primary", elem_id="train")
        self.report = gr.HTML(elem_id="report")
        self.confused = gr.Gallery(
            label="Confused examples",
            columns=8,
            height=200,
            visible=False,
            elem_id="confused",
            buttons=PICTURE_BUTTONS,
        )

    def _build_trying(self) -> None:
        gr.Markdown("## 3 Try")
        self.triers = {kind: gr.Group(visible=kind == "image") for kind in NAMES}
        self.tried = gr.State(None)
        self.label, self.answer = gr.HTML(elem_id="label"), gr.HTML(elem_id="answer")
        for kind, group in self.triers.items():
            with group:
                if kind == "text":
                    self.try_text = gr.Textbox(label="A text", elem_id="try-text")
                    continue
                with gr.Row(equal_height=True):
                    file = gr.File(label="A file", file_count="single", elem_id=f"try-{kind}", height=240)
                    live: dict[str, Any] = {"streaming": True, "type": "numpy", "label": "Live", "buttons": []}
                    if kind == "image":
                        self.try_image = file
                        self.live_camera = gr.Image(sources=["webcam"], elem_id="live-camera", **live)
                    else:
                        self.try_recording = file
                        self.live_microphone = gr.Audio(sources=["microphone"], elem_id="live-microphone", **live)
                        self.heard = gr.State(None)
        self.explain = gr.Button("Why?", elem_id="why")
        self.reason_picture = gr.Image(
            label="Why", visible=False, interactive=False, elem_id="reason", buttons=PICTURE_BUTTONS
        )
        self.reason_words = gr.HTML(elem_id="reason-words")

    def _build_taking(self) -> None:
        gr.Markdown(
            "## 4 Take it away\nA folder of Hugging Face transformers, and an ONNX model with a script that predicts "
            "without this toolkit."
        )
        note = f"Include up to {NUM_CHECKED} of the examples, so that the ONNX model can be checked"
        self.with_examples = gr.Checkbox(value=True, label=note, elem_id="with-examples")
        self.make_download = gr.Button("Make the file", elem_id="take")
        self.downloaded = gr.DownloadButton("Download it", visible=False, elem_id="taken")
        with gr.Row(visible=self.is_alone):
            self.repo_id = gr.Textbox(label="Name of a repository on a Hub, such as me/sounds", elem_id="repo-id")
            self.private = gr.Checkbox(value=True, label="Private", elem_id="private")
            self.push = gr.Button("Push it to the Hub", elem_id="push")
        self.pushed = gr.HTML(elem_id="pushed")

    def _build_projects(self) -> None:
        gr.Markdown("## Projects\nWhat you do is kept as you go. Save it by name to begin another one.")
        with gr.Row():
            self.save_name = gr.Textbox(label="Name", elem_id="save-name", max_lines=1)
            self.overwrite = gr.Checkbox(label="Replace a project of this name", elem_id="overwrite")
            self.save = gr.Button("Save", elem_id="save")
        with gr.Row():
            self.saved = _unchecked(gr.Dropdown([], label="Saved projects", elem_id="saved"))
            self.open_saved = gr.Button("Open", elem_id="open")
            self.delete_saved = gr.Button("Delete", elem_id="delete-saved")
            self.restore_saved = gr.Button("Restore the last deleted project", elem_id="restore-saved")
        with gr.Row():
            self.export = gr.Button("Export the project", elem_id="export")
            self.project_file = gr.DownloadButton("Download the project", visible=False, elem_id="project-file")
            self.open_file = gr.File(
                label=f"Open an exported project, up to {as_size(MOST_BYTES)}", elem_id="open-file", height=140
            )
        with gr.Row():
            self.start_again = gr.Button("Begin an empty project", elem_id="start-again")
            self.forget = gr.Button("Permanently delete removed items", elem_id="forget")
        with gr.Row():
            self.is_sure = gr.Checkbox(label="I am sure: this cannot be undone", elem_id="sure")
            self.delete_all = gr.Button("Delete all my data", variant="stop", elem_id="delete-all")

    # What happens

    @property
    def _view(self) -> list[Any]:
        """The components that show the project, and those that show what its classifier has answered."""
        found = [self.visitor, self.kind, self.status, self.chosen, self.name, self.color, self.gallery, self.texts]
        found += [self.screen, self.shown_keys, self.picked, self.player, self.report, self.confused, self.saved]
        return [*found, *self.adders.values(), *self.triers.values(), *self._answers]

    @property
    def _answers(self) -> list[Any]:
        """The components of what a classifier has answered, in the order of `no_answers`."""
        found = [self.downloaded, self.project_file, self.reason_picture, self.reason_words, self.pushed]
        return [*found, self.label, self.answer, self.tried]

    def _show(
        self,
        key: str,
        session: str | None,
        kind: str,
        chosen: int | None,
        screen: int = 1,
        message: str | None = None,
    ) -> list[Any]:
        """New values of the components of `_view`, for the visit with a key, in one of its sessions."""
        visit = self.visits.visit(key)[1]
        project, learned = visit.project(kind), visit.learned(kind)
        is_other = not visit.show(session, kind)
        classes = {each.key: each for each in project.classes}
        if not classes and message is None:
            message = "Begin with two classes or more, then choose one of them and add examples to it."
        if chosen not in classes:
            chosen = next(iter(classes), None)
        of_class = [] if chosen is None else project.of_class(chosen)
        num_screens = max(1, -(-len(of_class) // A_SCREEN))
        screen = min(max(1, screen or 1), num_screens)
        examples = of_class[(screen - 1) * A_SCREEN : screen * A_SCREEN]
        has_changed = learned is not None and not learned.state.learns_like(project.state)
        pictures = pictures_of(project, examples)
        texts = [(each.content, each.key) for each in examples if kind == "text"]
        while visit.troubles:
            warn(visit.troubles.pop())
        return [
            key,
            kind,
            rendering.status(message, has_changed),
            gr.Radio(choices_of(project), value=chosen),
            "" if chosen is None else classes[chosen].name,
            "#000000" if chosen is None else classes[chosen].color,
            gr.Gallery(pictures, visible=bool(pictures), selected_index=None),
            gr.Radio(texts, value=None, visible=bool(texts)),
            gr.Slider(maximum=max(2, num_screens), value=screen, visible=num_screens > 1),
            [example.key for example in examples],
            None,
            gr.Audio(None, visible=False),
            rendering.report(learned) if learned and not has_changed else "",
            gr.Gallery(visible=bool(learned and not has_changed and learned.confused and kind != "text")),
            gr.Dropdown(visit.saved(), value=None),
            *(gr.Group(visible=each == kind) for each in [*self.adders, *self.triers]),
            *(no_answers() if is_other else [gr.skip()] * len(self._answers)),
        ]

    def _connect(self, blocks: gr.Blocks) -> None:
        """Say what happens on each event."""
        self._connect_actions(blocks)
        self._connect_adders()
        self._connect_answers(Answers(self.visits))

    def _on(
        self,
        trigger: Callable,
        function: Callable[..., str | None],
        inputs: Sequence[Any] = (),
        cleared: Sequence[Any] = (),
        of_kind: str | None = None,
    ) -> None:
        """On an event, call `function`, which is one of `actions`, and show the project anew.

        Args:
            trigger: The event.
            function: Called with the visit, the kind of examples, the key of the chosen class, and the `inputs`.
            inputs: Components.
            cleared: Components that are emptied if it succeeds, so that nothing is lost if it does not.
            of_kind: The kind that the event belongs to, which is ignored while another one is shown.
        """

        def handler(request: gr.Request, visitor, kind, chosen, screen, *values):
            session = request.session_hash
            key, visit = self.visits.visit(visitor, session)
            if of_kind not in (None, kind):
                return [gr.skip()] * (len(self._view) + len(cleared))
            message, emptied = None, gr.skip()
            try:
                message, emptied = function(visit, kind, chosen, *values), None
            except REFUSALS as error:
                warn(reason_of(error))
            return [*self._show(key, session, kind, chosen, screen, message), *[emptied] * len(cleared)]

        place = [self.visitor, self.kind, self.chosen, self.screen]
        trigger(handler, [*place, *inputs], [*self._view, *cleared], api_visibility="private")

    def _connect_actions(self, blocks: gr.Blocks) -> None:
        on = self._on
        blocks.load(None, js=ANNOUNCE)
        on(blocks.load, actions.nothing)
        on(self.kind.input, actions.nothing)
        on(self.chosen.input, actions.nothing)
        on(self.screen.release, actions.nothing)
        on(self.undo.click, actions.undo)
        for trigger in (self.add_class.click, self.new_name.submit):
            on(trigger, actions.add_class, [self.new_name], [self.new_name])
        on(self.change_class.click, actions.change_class, [self.name, self.color])
        on(self.remove_class.click, actions.remove_class)
        on(self.remove_example.click, actions.remove_example, [self.picked])
        on(self.remove_examples.click, actions.remove_examples)
        on(self.save.click, actions.save, [self.save_name, self.overwrite], [self.save_name])
        on(self.delete_saved.click, actions.delete_saved, [self.saved])
        on(self.restore_saved.click, actions.restore_saved)
        on(self.start_again.click, actions.start_again)
        on(self.forget.click, actions.forget)
        on(self.delete_all.click, actions.delete_all, [self.is_sure], [self.is_sure])
        self._connect_opening(self.open_saved.click, actions.open_saved, self.saved)
        self._connect_opening(self.open_file.upload, actions.open_file, self.open_file)
        picking = [self.visitor, self.kind, self.shown_keys]
        self.gallery.select(self._pick, picking, [self.picked, self.player], api_visibility="private")
        self.texts.input(lambda key: key, self.texts, self.picked, api_visibility="private")

    def _connect_opening(self, trigger: Callable, function: Callable[..., str], component: Any) -> None:
        """On an event, open another project, of the kind that `function` returns, and show it."""

        def handler(request: gr.Request, visitor, kind, value):
            key, visit = self.visits.visit(visitor)
            message = None
            try:
                kind = function(visit, value)
                message = "The project is open. Undo brings back the one before."
            except REFUSALS as error:
                warn(reason_of(error))
            return self._show(key, request.session_hash, kind, None, message=message)

        inputs = [self.visitor, self.kind, component]
        trigger(handler, inputs, self._view, api_visibility="private")

    def _connect_adders(self) -> None:
        for kind, files in self.uploads:
            self._on(files.upload, actions.add_files, [files], [files], of_kind=kind)
        self._on(self.add_texts.click, actions.add_texts, [self.typed], [self.typed], of_kind="text")
        self._on(self.add_table.click, actions.add_table, [self.table], [self.table], of_kind="text")
        heard = [self.microphone]
        self._on(self.microphone.stop_recording, actions.add_recording, heard, heard, of_kind="audio")
        seen = [self.visitor, self.kind, self.chosen, self.recording, self.camera]
        self.camera.stream(self._add_frame, seen, [self.recording, *self._view], **_streamed(0.25))

    def _connect_answers(self, answers: Answers) -> None:
        hidden: dict[str, Any] = {"api_visibility": "private"}
        learning, answering = [self.visitor, self.kind], [self.label, self.answer, self.tried]
        learned = [self.status, self.report, self.confused, *self._answers]
        trained = self.train.click(answers.learn, learning, learned, show_progress_on=self.report, **hidden)
        reasons = [self.reason_picture, self.reason_words]
        explained = [*answering, *reasons]
        trained.then(answers.try_text_again, [*learning, self.try_text], explained, **hidden)
        at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
        self.try_text.change(
            answers.try_text, [self.visitor, self.try_text], explained, trigger_mode="always_last", **at_once, **hidden
        )
        for kind, file in (("image", self.try_image), ("audio", self.try_recording)):
            try_file = partial(answers.try_file, kind)
            file.upload(try_file, [self.visitor, file], [*explained, file], **at_once, **hidden)
        self.live_camera.stream(answers.try_frame, [self.visitor, self.live_camera], answering, **_streamed(0.25))
        hearing = [self.visitor, self.live_microphone, self.heard]
        self.live_microphone.start_recording(lambda: None, None, self.heard, **hidden)
        self.live_microphone.stream(answers.try_sound, hearing, [*answering, self.heard], **_streamed(0.5))
        self.explain.click(with_warnings(answers.explain), [*learning, self.tried], reasons, **hidden)
        taking = [*learning, self.with_examples]
        self.make_download.click(with_warnings(answers.download), taking, self.downloaded, **hidden)
        if self.is_alone:
            self.push.click(
                with_warnings(answers.push), [*learning, self.repo_id, self.private], self.pushed, **hidden
            )
        self.export.click(answers.export_project, learning, self.project_file, **hidden)

    def _pick(self, visitor: str, kind: str, keys: list[int], event: gr.SelectData) -> tuple[int | None, Any]:
        """Choose an example in the gallery; a recording can then be played."""
        project = self.visits.visit(visitor)[1].project(kind)
        key = keys[event.index] if event.index < len(keys) else None  # none where the server was started again
        example = next((example for example in project.examples if example.key == key), None)
        if example is None:
            return None, gr.skip()
        return key, gr.Audio(sound_of(project, example), visible=True) if kind == "audio" else gr.skip()

    def _add_frame(
        self,
        request: gr.Request,
        visitor: str,
        kind: str,
        chosen: int | None,
        recording: tuple[str, float],
        frame: np.ndarray | None,
    ) -> list[Any]:
        """Add what the camera shows now. The pictures are shown anew after every few of them.

        `recording` identifies the recording and has the time of its last picture.
        """
        if frame is None or kind != "image":
            return [gr.skip()] * (1 + len(self._view))
        now, (burst, last) = time.monotonic(), recording
        if now - last > NEW_RECORDING:
            burst = secrets.token_hex(8)
        project, new = self.visits.visit(visitor)[1].project(kind), {}
        try:
            name = f"camera {project.state.next_key}"
            project.add(actions.needed(chosen), [uploads.image_of(frame, name, burst)])
            count = len(project.of_class(actions.needed(chosen)))
            if count % FRAMES_A_REFRESH == 0:
                view = self._show(visitor, request.session_hash, kind, chosen, -(-count // A_SCREEN))
                shown = dict(zip(self._view, view, strict=True))
                new = {each: shown[each] for each in (self.gallery, self.shown_keys, self.screen, self.picked)}
            new[self.chosen] = gr.Radio(choices_of(project))
            message = f"Recording from the camera: {counted(count, 'example')}."
        except REFUSALS as error:
            message = reason_of(error)
        new[self.status] = rendering.status(message, False)
        return [(burst, now), *(new.get(each, gr.skip()) for each in self._view)]


def _unchecked(component: Any) -> Any:
    """The component, without gradio's check that its value is one of its choices: where the server has been started
    again, it does not know what a page that is open offers. The visit checks the value."""
    vars(component)["preprocess"] = lambda payload: payload
    return component


def _streamed(seconds: float) -> dict[str, Any]:
    """How a camera or microphone sends: every so many seconds, without a sign that something is computed."""
    how = {"stream_every": seconds, "show_progress": "hidden", "concurrency_limit": None}
    return {**how, "api_visibility": "private"}
