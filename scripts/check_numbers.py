#!/usr/bin/env python
"""Fail where README or a page of docs quotes a figure that no record under docs/results holds.

    python scripts/check_numbers.py

Checked are figures with an interval, `89.2 [88.6, 89.6]`, anywhere, and every cell of a table that is a number. A
record holds a figure if one of its numbers, as it is or times 100, rounds to it; an interval if one of
its intervals does.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

NUMBER = r"[+−-]?\d[\d,]*(?:\.\d+)?"
WITH_INTERVAL = re.compile(rf"({NUMBER})\**\s*\[({NUMBER}), ({NUMBER})\]")
CELL = re.compile(rf"\**({NUMBER})\**(?: s| %|)")


def leaves(value) -> Iterator[tuple[float, ...]]:
    """Every number of a record, as a tuple of one, and every interval, as a tuple of three."""
    if isinstance(value, dict):
        if set(value) == {"value", "low", "high"}:
            yield value["value"], value["low"], value["high"]
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield (value,)


def quoted(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The line and the parts of each figure."""
    for number, line in enumerate(text.splitlines(), start=1):
        for match in WITH_INTERVAL.finditer(line):
            yield number, match.groups()
        if line.startswith("|"):
            for cell in line.strip("| ").split("|"):
                if match := CELL.fullmatch(cell.strip()):
                    yield number, match.groups()


def holds(figure: tuple[str, ...], found: tuple[float, ...]) -> bool:
    if len(figure) != len(found):
        return False
    for factor in (1, 100):
        rounds = (
            abs(float(part.replace(",", "").replace("−", "-")) - factor * value)
            <= 0.5 * 10.0 ** -len(part.partition(".")[2]) + 1e-9
            for part, value in zip(figure, found, strict=True)
        )
        if all(rounds):
            return True
    return False


def main(root: Path) -> int:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("docs/results/*.json"))]
    known = {leaf for record in records for leaf in leaves(record)}
    missing = num_figures = 0
    for page in [root / "README.md", *sorted(root.glob("docs/**/*.md"))]:
        for line, figure in quoted(page.read_text(encoding="utf-8")):
            num_figures += 1
            if not any(holds(figure, found) for found in known):
                missing += 1
                print(f"{page.relative_to(root)}:{line}: no record under docs/results holds {' '.join(figure)}")
    print(f"{num_figures} figures checked, {missing} in no record")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
