#!/usr/bin/env python
"""Fail where README or a page of docs quotes a figure that no record under docs/results holds.

    python scripts/check_numbers.py

Checked are figures with an interval, `89.2 [88.6, 89.6]`, anywhere, and every cell of a table that is a number. The
records that a section quotes stand above its figures in a comment, `<!-- figures of ewt_elmo.json ewt_crf.json -->`. A
record holds a figure if one of its numbers, as it is or times 100, rounds to it; an interval if one of its intervals
does.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

NUMBER = r"[+−-]?\d[\d,]*(?:\.\d+)?"
WITH_INTERVAL = re.compile(rf"({NUMBER})\**\s*\[({NUMBER}), ({NUMBER})\]")
RECORDS = re.compile(r"<!-- figures of ([\w. -]+) -->")
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


def quoted(text: str) -> Iterator[tuple[int, list[str], tuple[str, ...]]]:
    """Of each figure the line, the names of the records that it should be in, and its parts."""
    records: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if match := RECORDS.search(line):
            records = match[1].split()
        elif line.startswith("#"):
            records = []
        for match in WITH_INTERVAL.finditer(line):
            yield number, records, match.groups()
        if line.startswith("|"):
            for cell in line.strip("| ").split("|"):
                if match := CELL.fullmatch(cell.strip()):
                    yield number, records, match.groups()


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
    paths = root.glob("docs/results/*.json")
    known = {path.name: set(leaves(json.loads(path.read_text(encoding="utf-8")))) for path in paths}
    missing = num_figures = 0
    for page in [root / "README.md", *sorted(root.glob("docs/**/*.md"))]:
        for line, records, figure in quoted(page.read_text(encoding="utf-8")):
            num_figures += 1
            if not any(holds(figure, found) for record in records for found in known.get(record, ())):
                missing += 1
                where = " or ".join(records) or "no record, since no comment above names one,"
                print(f"{page.relative_to(root)}:{line}: {' '.join(figure)} is not in {where}")
    print(f"{num_figures} figures checked, {missing} in no record")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
