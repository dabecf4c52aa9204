"""Explanations of one text as annotated PNGs, and as an HTML page that needs no other file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import pyplot

matplotlib.rcParams["text.parse_math"] = False  # a word may be "$"

DPI = 130
MOST_PIXELS = 6000  # of a side of a picture
MOST_WORDS, MOST_TOKENS, MOST_UNITS = 80, 40, 60  # words, tokens of a head and units of a hidden state that are drawn
LABEL_SIZE = 8  # of labels, in points


@dataclass
class Page:
    """Pictures and coloured texts, written to a folder one by one and then as a page."""

    title: str
    folder: Path
    sections: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def add_picture(self, name: str, heading: str, note: str, figure) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.png"
        figure.savefig(path, dpi=min(DPI, MOST_PIXELS / max(figure.get_size_inches())))
        pyplot.close(figure)
        self.files.append(path)
        data = base64.b64encode(path.read_bytes()).decode()
        self.sections.append({"heading": heading, "note": note, "picture": f"data:image/png;base64,{data}"})

    def add_words(self, heading: str, note: str, words: Sequence[str], values: np.ndarray) -> None:
        """Show words on a background of their values, (W,): red above 0, blue below."""
        largest = float(np.abs(values).max()) or 1.0
        shown = [
            {"word": word, "value": f"{value:+.3f}", "color": background_of(value / largest)}
            for word, value in zip(words, values.tolist(), strict=True)
        ]
        self.sections.append({"heading": heading, "note": note, "words": shown})

    def write(self) -> list[Path]:
        """Write the page. Returns the paths of all files."""
        from jinja2 import Environment

        template = (files("toolkit.explain") / "explanation.html.jinja").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        page = environment.from_string(template).render(title=self.title, sections=self.sections)
        self.files.append(self.folder / "explanation.html")
        self.files[-1].write_text(page, encoding="utf-8")
        return self.files


def how_many(number: int, most: int, what: str) -> str:
    """A sentence that says that a picture shows only the first `most` of them, if it does."""
    return f" The first {most} of {number} {what} are shown." if number > most else ""


def draw_bars(words: Sequence[str], values: dict[str, np.ndarray], unit: str):
    """Draw for each method, in `values`, the value of each word (W,) as a bar, one method beside the other.

    Like the functions below, this one draws the first words only if there are many; see `how_many`.
    """
    words, values = words[:MOST_WORDS], {method: of_words[:MOST_WORDS] for method, of_words in values.items()}
    figure, all_axes = pyplot.subplots(
        1, len(values), figsize=(1 + 3.2 * len(values), 1 + 0.24 * len(words)), layout="constrained", squeeze=False
    )
    places = np.arange(len(words))
    for axes, (method, of_words) in zip(all_axes[0], values.items(), strict=True):
        colors = ["#b2182b" if value > 0 else "#2166ac" for value in of_words]
        axes.barh(places, of_words, color=colors, hatch=["" if value > 0 else "///" for value in of_words])
        axes.set_yticks(places, words, fontsize=LABEL_SIZE)
        axes.invert_yaxis()
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(method, fontsize=9)
        axes.set_xlabel(unit, fontsize=LABEL_SIZE)
    return figure


def draw_matrix(
    rows: Sequence[str], columns: Sequence[str], values: np.ndarray, title: str, unit: str, labels: tuple[str, str]
):
    """Draw a heat map (rows, columns): from white for 0 or, of values below 0 too, from blue over white to red.

    `labels` say what the rows and what the columns are.
    """
    rows, columns, values = rows[:MOST_WORDS], columns[:MOST_WORDS], values[:MOST_WORDS, :MOST_WORDS]
    size = (1.8 + 0.3 * len(columns), 1.6 + 0.28 * len(rows))
    figure, axes = pyplot.subplots(figsize=(max(4, size[0]), max(3, size[1])), layout="constrained")
    largest = float(np.abs(values).max()) or 1.0
    is_signed = float(values.min()) < 0
    colours: Any = {"cmap": "RdBu_r", "vmin": -largest} if is_signed else {"cmap": "Greys", "vmin": 0}
    drawn = axes.imshow(values, **colours, vmax=largest, aspect="auto")
    axes.set_xticks(
        range(len(columns)), columns, rotation=90 if max(map(len, columns)) > 2 else 0, fontsize=LABEL_SIZE
    )
    axes.set_yticks(range(len(rows)), rows, fontsize=LABEL_SIZE)
    axes.set_ylabel(labels[0], fontsize=LABEL_SIZE)
    axes.set_xlabel(labels[1], fontsize=LABEL_SIZE)
    axes.set_title(title, fontsize=9)
    figure.colorbar(drawn, ax=axes, shrink=0.8).set_label(unit, fontsize=7)
    return figure


def draw_heads(tokens: Sequence[str], layers: Sequence[np.ndarray]):
    """Draw the attention of each layer (rows) and head (columns), each (T, T): rows are queries, columns are keys."""
    tokens, num_heads = tokens[:MOST_TOKENS], len(layers[0])
    side = 0.6 + 0.11 * len(tokens)
    figure, all_axes = pyplot.subplots(
        len(layers), num_heads, figsize=(num_heads * side, len(layers) * side), layout="constrained", squeeze=False
    )
    for layer, (row, weights) in enumerate(zip(all_axes, layers, strict=True)):
        for head, axes in enumerate(row):
            axes.imshow(weights[head, :MOST_TOKENS, :MOST_TOKENS], cmap="Greys", vmin=0, vmax=1)
            axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=6)
            axes.set_xticks(range(len(tokens)), tokens if layer == len(layers) - 1 else [], rotation=90, fontsize=5)
            axes.set_yticks(range(len(tokens)), tokens if head == 0 else [], fontsize=5)
            axes.tick_params(length=1)
    return figure


def draw_states(words: Sequence[str], directions: np.ndarray):
    """Draw the units of hidden states (directions, W, H) that change most over time; below, how far each step goes."""
    words, directions = words[:MOST_WORDS], directions[:, :MOST_WORDS]
    names = ["forwards", "backwards"][: len(directions)]
    figure, all_axes = pyplot.subplots(
        2,
        len(directions),
        figsize=(len(directions) * (1.6 + 0.28 * len(words)), 6),
        height_ratios=[3, 1],
        layout="constrained",
        squeeze=False,
    )
    for (above, below), states, name in zip(all_axes.T, directions, names, strict=True):
        units = np.sort(np.argsort(-states.var(axis=0), kind="stable")[:MOST_UNITS])
        drawn = above.imshow(
            states[:, units].T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest"
        )
        above.set_title(f"reading {name}: the {len(units)} units that change most", fontsize=9)
        above.set_xticks(range(len(words)), [])
        above.set_ylabel("unit", fontsize=LABEL_SIZE)
        steps = np.linalg.norm(np.diff(states, axis=0), axis=1)
        read = np.arange(1, len(words)) if name == "forwards" else np.arange(len(words) - 1)
        below.bar(read, steps, color="#555555")
        below.set_xlim(-0.5, len(words) - 0.5)
        below.set_xticks(range(len(words)), words, rotation=90, fontsize=LABEL_SIZE)
        below.set_ylabel("change of the state\n(Euclidean)", fontsize=7)
    figure.colorbar(drawn, ax=all_axes[0].tolist(), shrink=0.8).set_label("state", fontsize=7)
    return figure


def background_of(share: float) -> str:
    """A background from blue (-1) over white (0) to red (1), pale enough for black text."""
    fade = round(255 - 125 * abs(share))
    return f"rgb(255,{fade},{fade})" if share > 0 else f"rgb({fade},{fade},255)"
