#!/usr/bin/env python
"""Compare the sizes and the journeys of two versions of the toolkit, for the tables of docs/architecture.md.

    git worktree add ../old COMMIT
    python scripts/measure_architecture.py ../old .

Code lines are those that are neither blank nor comments nor part of a docstring. The journeys are those of
`tests/journeys.py` of this checkout, run in both. Record: docs/results/architecture.json.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarking import RESULTS

from toolkit.runs.output import write_json

LONG_FUNCTION, LONG_FILE = 60, 350  # lines
JOURNEYS = Path(__file__).resolve().parent.parent / "tests" / "journeys.py"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def sizes(checkout: Path) -> dict[str, int]:
    files = [path for folder in ("toolkit", "tasks") for path in sorted((checkout / folder).rglob("*.py"))]
    texts = [path.read_text(encoding="utf-8") for path in files]
    trees = [ast.parse(text) for text in texts]
    functions = [_length(node) for tree in trees for node in ast.walk(tree) if isinstance(node, DOCUMENTED[2:])]
    lengths = [len(text.splitlines()) for text in texts]
    in_docstrings = [set(_docstring_lines(tree)) for tree in trees]
    return {
        "loose modules": len(list((checkout / "toolkit").glob("*.py"))),
        "rooms": len({path.parent for path in files if path.parent.parent == checkout / "toolkit"}),
        "files": len(files),
        "longest function": max(functions),
        f"functions over {LONG_FUNCTION} lines": sum(length > LONG_FUNCTION for length in functions),
        "longest file": max(lengths),
        f"files over {LONG_FILE} lines": sum(length > LONG_FILE for length in lengths),
        "lines": sum(lengths),
        "docstrings": sum(map(len, in_docstrings)),
        "code": sum(
            number not in inside and bool(line.strip()) and not line.lstrip().startswith("#")
            for text, inside in zip(texts, in_docstrings, strict=True)
            for number, line in enumerate(text.splitlines(), start=1)
        ),
        "imports": sum(_length(node) for tree in trees for node in ast.walk(tree) if _is_import(node)),
    }


def _length(node: Any) -> int:
    return node.end_lineno - node.lineno + 1


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            yield from range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def journeys(checkout: Path) -> dict[str, dict[str, int]]:
    """The number of files and of returns of each journey, which begins with an empty cache."""
    found = {}
    for kind in ("text", "pos", "image"):
        command = [sys.executable, str(JOURNEYS), kind, str(checkout)]
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "HF_DATASETS_CACHE": cache}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        found[kind] = {name: json.loads(done.stdout)[name] for name in ("files", "returns")}
    return found


if __name__ == "__main__":
    versions = dict(zip(("old", "now"), (Path(word).resolve() for word in sys.argv[1:3]), strict=True))
    measured = {
        "journeys": {name: journeys(checkout) for name, checkout in versions.items()},
        "sizes": {name: sizes(checkout) for name, checkout in versions.items()},
    }
    write_json(RESULTS / "architecture.json", measured)
    print(json.dumps(measured, indent=2))
