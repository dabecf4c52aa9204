"""Imports go one way: scripts -> toolkit.cli -> tasks -> toolkit."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

FILES = sorted([*REPOSITORY.glob("toolkit/**/*.py"), *REPOSITORY.glob("tasks/**/*.py")])


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(REPOSITORY).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            modules |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return modules


TRAINING = ("training", "batches", "evaluation", "processes", "interruptions", "checkpoint")  # of whatever model


def offending(path: Path, *prefixes: str) -> set[str]:
    return {name for name in imported_modules(path) if name.startswith(prefixes)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_go_one_way(path):
    where = path.relative_to(REPOSITORY).parts
    is_command = where[:2] == ("toolkit", "commands")
    if where[0] == "toolkit" and not is_command:
        assert not offending(path, "tasks")
    if not is_command and path.name not in ("cli.py",):
        assert not offending(path, "toolkit.cli")
    if where[:2] == ("toolkit", "models"):
        allowed = {"torch", "torchcrf", "transformers", *sys.stdlib_module_names}
        others = {name for name in imported_modules(path) if name.split(".")[0] not in allowed}
        assert all(name.startswith("toolkit.models") for name in others)
    if where[0] == "toolkit" and path.stem in TRAINING:
        assert not offending(
            path, "toolkit.models", "toolkit.pretraining", "toolkit.data", "tasks", "toolkit.models.families"
        )
    if where[:2] == ("toolkit", "data"):
        assert not offending(path, "toolkit.models", "toolkit.pretraining", "toolkit.training.loop", "tasks")


def test_there_is_one_training_loop():
    assert [path.name for path in FILES if ".backward(" in path.read_text(encoding="utf-8")] == ["training.py"]


def test_no_pickle_is_read_or_written():
    for path in FILES:
        assert not offending(path, "pickle", "joblib", "dill"), path
        text = path.read_text(encoding="utf-8")
        assert "torch.save(" not in text, path
        assert "torch.load(" not in text, path


@pytest.mark.parametrize(
    "module", ["toolkit", "toolkit.cli.dispatch", "toolkit.pretraining", "tasks", "toolkit.cli.score"]
)
def test_import_loads_nothing_heavy(module):
    code = f"import {module}, sys; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_export_is_there():
    import toolkit

    assert all(getattr(toolkit, name) is not None for name in toolkit.__all__)


def test_every_package_is_installed():
    folders = {file.parent.relative_to(REPOSITORY).parts for file in FILES if file.name == "__init__.py"}
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (listed,) = [line for line in project.splitlines() if line.startswith("packages = [") and "toolkit.models" in line]
    assert {".".join(parts) for parts in folders} == set(ast.literal_eval(listed.partition("= ")[2]))
