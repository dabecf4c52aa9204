"""The lessons of the page: their components and events."""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from toolkit.app import lessons
from toolkit.app.messages import with_warnings
from toolkit.app.thumbnails import PICTURE_BUTTONS
from toolkit.app.uploads import read_image
from toolkit.app.visits import Visits


def build_lessons(visits: Visits, visitor: Any, kind: Any) -> None:
    """Add the lessons to the page; `visitor` and `kind` are its components."""
    hidden: dict[str, Any] = {"api_visibility": "private"}
    _build_convolution(visits, visitor, hidden)
    learner = visits.learners["text"]
    gr.Markdown(
        "## Attention\nEach row is a query token, each column a key token; a row sums to 1. If the encoder of this "
        "page has no attention, the vectors x of the words attend to each other, none to itself."
    )
    sentence = gr.Textbox("she has two brothers and three sisters", label="A sentence", elem_id="sentence")
    attend = gr.Button("Show the attention", elem_id="attend")
    picture = gr.Plot(label="Attention", elem_id="attention", visible=False)

    def attention(text: str) -> Any:
        return gr.Plot(lessons.attention_of(learner, text), visible=True)

    attend.click(with_warnings(attention), sentence, picture, **hidden)
    gr.Markdown("## Nearest words\nWords that stand in similar contexts have similar vectors.")
    word = gr.Textbox("king", label="A word", elem_id="word", max_lines=1)
    find = gr.Button("Show the nearest words", elem_id="nearest-words")
    nearest = gr.HTML(elem_id="nearest")
    for trigger in (find.click, word.submit):
        trigger(with_warnings(partial(lessons.nearest_words, learner)), word, nearest, **hidden)
    gr.Markdown(
        "## What pretraining bought\nYour examples, classified on the encoder of this page, and on the same network "
        "with random weights. Both are cross-validated."
    )
    compare = gr.Button("Compare", elem_id="compare")
    bought = gr.HTML(elem_id="bought")

    def what_pretraining_bought(key: str, of_kind: str) -> Any:
        project = visits.visit(key)[1].project(of_kind)
        return lessons.what_pretraining_bought(visits.learners[of_kind], project)

    compare.click(with_warnings(what_pretraining_bought), [visitor, kind], bought, **hidden)


def _build_convolution(visits: Visits, visitor: Any, hidden: dict[str, Any]) -> None:
    gr.Markdown(
        "## Convolution and pooling\nA kernel is laid over every place of the image, and the products are added."
    )
    file = gr.File(label="An image", file_count="single", elem_id="lesson-image", height=140)
    with gr.Row():
        kernel = gr.Dropdown(list(lessons.KERNELS), value="vertical edges", label="Kernel", elem_id="kernel")
        size = gr.Slider(1, 16, 1, step=1, label="Side of the pooled squares, in pixels", elem_id="pool-size")
        pooling = gr.Radio(list(lessons.POOLING), value="maximum", label="Pool by", elem_id="pooling")
    table = gr.HTML(lessons.table_of("vertical edges"))
    result = gr.Image(
        label="The result", interactive=False, visible=False, elem_id="convolved", buttons=PICTURE_BUTTONS
    )

    def convolve(key: str, path: str | None, name: str, of_size: float, by: str) -> Any:
        if path is None:
            return gr.skip()
        visits.visit(key)[1].note_uploads([path])
        return gr.Image(_convolve(path, name, int(of_size), by), visible=True)

    kernel.input(lessons.table_of, kernel, table, **hidden)
    for trigger in (file.upload, kernel.input, size.release, pooling.input):
        trigger(with_warnings(convolve), [visitor, file, kernel, size, pooling], result, **hidden)


def _convolve(path: str, kernel: str, size: int, pooling: str) -> np.ndarray:
    import io

    from PIL import Image

    new = read_image(Path(path), Path(path).name)
    assert isinstance(new.content, bytes)
    return lessons.convolved(np.asarray(Image.open(io.BytesIO(new.content))), kernel, size, pooling)
