"""A comparison as a table for the terminal and as one self-contained HTML page, with plots."""

import io
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from toolkit.reports.results import LOG_FILE

ROUNDING = 1e-9
# Black-and-white print keeps encoders apart by marker, and pretrained from scratch by line.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def table(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the one table: what each encoder cost and what it bought at each label budget."""
    head = ["encoder", "parameters", "pretraining s", "throughput", "peak memory MB"]
    for budget in record["encoders"][0]["budgets"]:
        head += [f"{record['figure']}, {budget['name']}", "from scratch", "gain over scratch"]
    rows = []
    for encoder in record["encoders"]:
        cost = ["unknown"] * 3
        if pretraining := encoder["pretraining"]:
            throughput = f"{pretraining['throughput']:,.0f} {pretraining['throughput_unit']}"
            cost = [f"{pretraining['seconds']:,.0f}", throughput, f"{pretraining['peak_memory_mb']:,.0f}"]
        row = [encoder["name"], f"{encoder['parameters']:,}", *cost]
        for budget in encoder["budgets"]:
            row += [
                _percent(budget["pretrained"][record["figure"]]),
                _percent(budget["scratch"][record["figure"]]),
                _percent(budget["gain"], signed=True) + (" *" if is_significant(budget["gain"]) else ""),
            ]
        rows.append(row)
    if baseline := record.get("baseline"):
        row = [baseline["name"], "", "", "", ""]
        for budget in baseline["budgets"]:
            row += [_percent(budget[record["figure"]]), "", ""]
        rows.append(row)
    return head, rows


def is_significant(gain: dict[str, float]) -> bool:
    """Whether the interval of the gain excludes 0; a bound that rounding moved off 0 does not."""
    return gain["low"] > ROUNDING or gain["high"] < -ROUNDING


def turned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The table on its side, a column an encoder, which fits terminals and pages."""
    return list(zip(head, *rows, strict=True))


def as_text(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the first line the head, with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([padded[0], "-" * len(padded[0]), *padded[1:]])


def conclusions(record: dict[str, Any]) -> list[str]:
    """What the table says about each encoder, in sentences."""
    sentences = []
    for encoder in record["encoders"]:
        for budget in encoder["budgets"]:
            gain = budget["gain"]
            points = f"{100 * gain['value']:+.1f} points [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
            verdict = "no difference that these test items can tell from chance"
            if is_significant(gain):
                verdict = "pretraining helped" if gain["value"] > 0 else "pretraining did harm"
            sentences.append(f"{encoder['name']} with {budget['name']}: {verdict}, {points}.")
    return sentences


def write_html(comparisons: dict[str, dict[str, Any]], path: Path, title: str, notes: Sequence[str] = ()) -> None:
    """One page without any other file. For each comparison, by its heading: table, learning curves, some items side by
    side; and what pretraining cost."""
    from jinja2 import Environment

    template = (files("toolkit.reports") / "report.html.jinja").read_text(encoding="utf-8")
    sections = [
        {
            "heading": heading,
            "record": record,
            "names": [encoder["name"] for encoder in record["encoders"]],
            "table": turned(*table(record)),
            "conclusions": conclusions(record),
            "curves": _svg(_draw_learning_curves, record),
        }
        for heading, record in comparisons.items()
    ]
    first = next(iter(comparisons.values()))
    page = (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            title=title,
            sections=sections,
            notes=notes,
            losses=_svg(_draw_pretraining, first),
        )
    )
    path.write_text(page, encoding="utf-8")


def write_confusion_matrix(path: Path, right: Sequence[str], predicted: Sequence[str]) -> None:
    """A picture: a row a right label, a column a predicted one, shaded by the share of the row."""
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    from matplotlib import pyplot

    labels = sorted({*right, *predicted})
    place = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, ([place[label] for label in right], [place[label] for label in predicted]), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2 + 0.42 * len(labels)
    figure, axes = pyplot.subplots(figsize=(size + 0.8, size), layout="constrained")
    image = axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("right")
    axes.set_title(f"accuracy {np.trace(counts) / counts.sum():.1%} of {counts.sum():,}")
    figure.colorbar(image, ax=axes, label="share of the right label", shrink=0.8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _percent(interval: dict[str, float], signed: bool = False) -> str:
    value, low, high = (f"{100 * interval[key]:{'+' if signed else ''}.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _svg(draw: Callable[[Any, dict[str, Any]], None], record: dict[str, Any]) -> str:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "toolkit", "font.size": 10, "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
        draw(axes, record)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]


def _draw_learning_curves(axes, record: dict[str, Any]) -> None:
    figure = record["figure"]
    for i, (encoder, marker) in enumerate(zip(record["encoders"], MARKERS, strict=False)):
        for variant, line, fill in (("pretrained", "-", "full"), ("scratch", ":", "none")):
            cells = [budget[variant][figure] for budget in encoder["budgets"]]
            # Side by side, so that intervals at the same budget do not hide one another.
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
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_pretraining(axes, record: dict[str, Any]) -> None:
    for i, (encoder, marker) in enumerate(zip(record["encoders"], MARKERS, strict=False)):
        log = Path(encoder["folder"]) / LOG_FILE
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
        points = [(line["seconds"], line["validation_loss"]) for line in lines if "validation_loss" in line]
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, color=f"C{i}", label=encoder["name"])
    axes.set_xlabel("seconds of pretraining")
    axes.set_ylabel("held-out loss (nats)")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
