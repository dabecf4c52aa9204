#!/usr/bin/env python
"""Check that every figure in README and the pages of docs is in a record under docs/results.

    python scripts/check_numbers.py

Figures are all numbers with an interval, `89.2 [88.6, 89.6]`, and all table cells that are numbers. A comment above
the figures of a section names their records: `<!-- figures of ewt_elmo.json ewt_crf.json -->`. A record contains a
figure if one of its numbers, or a number times 100, rounds to it, and an interval if one of its intervals does. The
exit code is 1 if a figure is in no record.
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
    """Generate every number of a record as a tuple of one, and every interval as a tuple of three."""
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


def figures_in(text: str) -> Iterator[tuple[int, list[str], tuple[str, ...]]]:
    """Generate the line number of each figure, the names of its records, and its parts."""
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


def matches(figure: tuple[str, ...], found: tuple[float, ...]) -> bool:
    """Whether the numbers of a record, or 100 times these, round to the figure."""
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
        for line, records, figure in figures_in(page.read_text(encoding="utf-8")):
            num_figures += 1
            if not any(matches(figure, found) for record in records for found in known.get(record, ())):
                missing += 1
                where = " or ".join(records) or "no record, since no comment above names one,"
                print(f"{page.relative_to(root)}:{line}: {' '.join(figure)} is not in {where}")
    print(f"{num_figures} figures checked, {missing} in no record")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
