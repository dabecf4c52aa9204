"""Comparisons of encoders as one self-contained HTML page: tables, learning curves, test examples side by side."""

import io
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from itertools import cycle
from pathlib import Path
from typing import Any

from toolkit.runs.results import LOG_FILE
from toolkit.runs.tables import conclusions, table

# In black and white, markers tell encoders apart, and line styles tell whether they were pretrained.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def write_html(comparisons: dict[str, dict[str, Any]], path: Path, title: str, notes: Sequence[str] = ()) -> None:
    """Write an HTML page that needs no other file: each comparison gets a table, learning curves and some examples.

    Args:
        comparisons: Records of comparisons by heading.
        path: The file.
        title: Title of the page.
        notes: Sentences below the conclusions of the first comparison.
    """
    from jinja2 import Environment

    template = (files("toolkit.runs") / "report.html.jinja").read_text(encoding="utf-8")
    sections = [
        {
            "heading": heading,
            "record": record,
            "names": [encoder["name"] for encoder in record["encoders"]],
            "table": table(record),
            "conclusions": conclusions(record),
            "curves": _svg(_draw_learning_curves, record),
        }
        for heading, record in comparisons.items()
    ]
    first = next(iter(comparisons.values()))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    losses = _svg(_draw_pretraining, first)
    page = environment.from_string(template).render(title=title, sections=sections, notes=notes, losses=losses)
    path.write_text(page, encoding="utf-8")


def _svg(draw: Callable[[Any, dict[str, Any]], None], record: dict[str, Any]) -> str:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "toolkit", "font.size": 10, "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
        draw(axes, record)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]  # without the XML declaration


def _draw_learning_curves(axes, record: dict[str, Any]) -> None:
    figure = record["figure"]
    for i, (encoder, marker) in enumerate(zip(record["encoders"], cycle(MARKERS), strict=False)):
        for variant, line, fill in (("pretrained", "-", "full"), ("scratch", ":", "none")):
            cells = [budget[variant][figure] for budget in encoder["budgets"]]
            # Shifted a little, so that intervals at the same budget do not cover one another.
            sizes = [budget["train_size"] * 1.02 ** (i - 1) for budget in encoder["budgets"]]
            values = [100 * cell["value"] for cell in cells]
            below = [100 * (cell["value"] - cell["low"]) for cell in cells]
            above = [100 * (cell["high"] - cell["value"]) for cell in cells]
            label = f"{encoder['name']}, {'pretrained' if variant == 'pretrained' else 'from scratch'}"
            style = {"marker": marker, "linestyle": line, "fillstyle": fill, "color": f"C{i}", "capsize": 3}
            axes.errorbar(sizes, values, yerr=[below, above], label=label, **style)
    if baseline := record.get("baseline"):
        sizes = [budget["train_size"] for budget in baseline["budgets"]]
        values = [100 * budget[figure]["value"] for budget in baseline["budgets"]]
        axes.plot(sizes, values, marker="x", linestyle="--", color="black", label=baseline["name"])
    axes.set_xscale("log")
    sizes = [budget["train_size"] for budget in record["encoders"][0]["budgets"]]
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("labelled training examples")
    axes.set_ylabel(f"test {figure} (%), 95% interval")


def _draw_pretraining(axes, record: dict[str, Any]) -> None:
    for i, (encoder, marker) in enumerate(zip(record["encoders"], cycle(MARKERS), strict=False)):
        log = Path(encoder["folder"]) / LOG_FILE
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
        points = [(line["seconds"], line["validation_loss"]) for line in lines if "validation_loss" in line]
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, color=f"C{i}", label=encoder["name"])
    axes.set_xlabel("seconds of pretraining")
    axes.set_ylabel("held-out loss (nats)")
