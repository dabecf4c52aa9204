"""What the documentation shows is run: examples in docstrings, and the Python of README."""

import doctest
import importlib
import re

from conftest import REPOSITORY


def test_examples_in_docstrings():
    results = doctest.testmod(importlib.import_module("toolkit.metrics.tagging"))
    assert results.attempted > 0
    assert results.failed == 0


def test_the_python_of_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block.count("\n") <= 12, "ten lines, as promised"
    fewer_steps = block.replace("max_steps=60", "max_steps=30")
    assert fewer_steps.count("max_steps=30") == 2
    exec(compile(fewer_steps, "README.md", "exec"), found := {})
    printed = capsys.readouterr().out
    assert "'value'" in printed
    assert "'tokens': ['Unheard-of', 'wugs', 'frobnicate', '.']" in printed
    assert "'PUNCT']" in printed
    assert found["record"]["metrics"]["accuracy"]["value"] > 0.3
    assert (tmp_path / "runs" / "tagger" / "results.json").exists()
