"""The structure of the package beyond what `make lint` holds: rooms, names, installed files, what an import loads."""

import re
import subprocess
import sys
from collections import defaultdict

import pytest
from conftest import REPOSITORY
from setuptools import find_packages

FILES = sorted([*REPOSITORY.glob("toolkit/**/*.py"), *REPOSITORY.glob("tasks/**/*.py")])
MIRRORS = [  # pairs of rooms where a file of one goes with the file of the same name in the other
    {"toolkit/models", "toolkit/pretraining"},
    {"toolkit/modalities", "toolkit/data"},
    {"toolkit/cli", "tasks"},
    {"toolkit/models", "tasks"},
    {"toolkit/corpora", "toolkit/modalities"},
]


def test_the_package_has_few_rooms():
    entries = {path.name for path in (REPOSITORY / "toolkit").iterdir() if not path.name.startswith("__py")}
    loose = {"__init__.py", "__main__.py", "errors.py"}
    assert loose < entries
    rooms = entries - loose
    assert len(rooms) <= 14
    assert all((REPOSITORY / "toolkit" / room / "__init__.py").is_file() for room in rooms)


def test_no_two_classes_share_a_name():
    places = defaultdict(list)
    for path in FILES:
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            places[name].append(str(path.relative_to(REPOSITORY)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_files_share_a_name_only_where_rooms_mirror_each_other():
    places = defaultdict(set)
    for path in FILES:
        if path.name not in ("__init__.py", "__main__.py", "arguments.py", "base.py"):
            places[path.name].add(str(path.parent.relative_to(REPOSITORY)))
    assert {name: rooms for name, rooms in places.items() if len(rooms) > 1 and rooms not in MIRRORS} == {}


def test_every_package_and_every_data_file_is_installed():
    packages = find_packages(str(REPOSITORY), include=["toolkit*", "tasks"])
    assert {".".join(path.parent.relative_to(REPOSITORY).parts) for path in FILES} == set(packages)
    data = {path for path in REPOSITORY.glob("toolkit/**/*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert len(data) >= 5
    declared = set()
    for line in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r'"(toolkit\.[\w.]+)" = \["(.+)"\]', line):
            for pattern in found[2].split('", "'):
                declared |= set((REPOSITORY / found[1].replace(".", "/")).glob(pattern))
    assert data <= declared


@pytest.mark.parametrize(
    "module", ["toolkit", "toolkit.cli.dispatch", "toolkit.pretraining", "toolkit.modalities", "tasks", "toolkit.hub"]
)
def test_import_loads_nothing_heavy(module):
    code = f"import {module}, sys; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_export_is_there():
    import toolkit

    assert all(getattr(toolkit, name) is not None for name in toolkit.__all__)
