"""What the documentation shows is run: examples in docstrings, and the Python of README."""

import doctest
import importlib
import re

import pytest
from conftest import REPOSITORY


@pytest.mark.parametrize("name", ["tasks", "toolkit.metrics.tagging"])
def test_examples_in_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


def test_the_python_of_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block.count("\n") <= 12, "ten lines, as promised"
    exec(compile(block, "README.md", "exec"), {})
    assert "'value'" in capsys.readouterr().out
    assert (tmp_path / "runs" / "tagger" / "results.json").exists()
