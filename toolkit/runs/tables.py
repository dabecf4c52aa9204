"""A comparison of encoders as a table and as sentences, for the terminal and the HTML page."""

from collections.abc import Sequence
from typing import Any

ROUNDING = 1e-9


def table(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """The cost of each encoder and, for each label budget, its figures and its gain: a column per encoder."""
    head = ["encoder", "parameters", "pretraining s", "throughput", "peak memory MB"]
    for budget in record["encoders"][0]["budgets"]:
        head += [f"{record['figure']}, {budget['name']}", "from scratch", "gain over scratch"]
    columns = [head]
    for encoder in record["encoders"]:
        cost = ["unknown"] * 3
        if pretraining := encoder["pretraining"]:
            throughput = f"{pretraining['throughput']:,.0f} {pretraining['throughput_unit']}"
            cost = [f"{pretraining['seconds']:,.0f}", throughput, f"{pretraining['peak_memory_mb']:,.0f}"]
        column = [encoder["name"], f"{encoder['parameters']:,}", *cost]
        for budget in encoder["budgets"]:
            column += [
                _percent(budget["pretrained"][record["figure"]]),
                _percent(budget["scratch"][record["figure"]]),
                _percent(budget["gain"], signed=True) + (" *" if is_significant(budget["gain"]) else ""),
            ]
        columns.append(column)
    if baseline := record.get("baseline"):
        column = [baseline["name"], "", "", "", ""]
        for budget in baseline["budgets"]:
            column += [_percent(budget[record["figure"]]), "", ""]
        columns.append(column)
    return list(zip(*columns, strict=True))


def is_significant(gain: dict[str, float]) -> bool:
    """Whether the interval of the gain excludes 0 by more than a rounding error."""
    return gain["low"] > ROUNDING or gain["high"] < -ROUNDING


def as_text(lines: Sequence[Sequence[str]]) -> str:
    """Format lines of cells, the head first, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([padded[0], "-" * len(padded[0]), *padded[1:]])


def conclusions(record: dict[str, Any]) -> list[str]:
    """One sentence per encoder and label budget: whether pretraining helped, and by how many points."""
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


def _percent(interval: dict[str, float], signed: bool = False) -> str:
    value, low, high = (f"{100 * interval[key]:{'+' if signed else ''}.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
