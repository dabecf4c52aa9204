"""`import toolkit` limits how long idle threads spin; GNU's OpenMP and OpenBLAS say themselves what they have read."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY

from toolkit.runs.threads import SPIN_LIMITS, WAIT_POLICY

TORCH = Path(importlib.util.find_spec("torch").origin).parent
GNU_RUNTIME = next(TORCH.glob("lib/libgomp*.so*"), None)
LOAD_RUNTIME = f"import ctypes; ctypes.CDLL({str(GNU_RUNTIME)!r})"  # as torch does, in a tenth of the time
LIMIT = SPIN_LIMITS["GOMP_SPINCOUNT"]
OPENBLAS = next(
    Path(importlib.util.find_spec("numpy").origin).parent.parent.glob("numpy.libs/libscipy_openblas*"), None
)

needs_gnu_runtime = pytest.mark.skipif(GNU_RUNTIME is None, reason="this torch has another OpenMP runtime than GNU's")


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess:
    """Run code in a new interpreter, in which OpenMP runtimes print their settings to stderr when they are loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in (WAIT_POLICY, *SPIN_LIMITS)}
    environment |= {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(REPOSITORY), **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)


def spin_counts(done: subprocess.CompletedProcess) -> list[str]:
    return re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)


@needs_gnu_runtime
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, LIMIT),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"OMP_WAIT_POLICY": "passive"}, "0"),
        ({"OMP_WAIT_POLICY": "active"}, "30000000000"),
        ({"KMP_BLOCKTIME": "1"}, LIMIT),  # which `accelerate launch --cpu` sets
    ],
)
def test_the_runtime_reads_the_limit_unless_the_user_sets_another(variables, expected):
    assert spin_counts(run_python(f"import toolkit; {LOAD_RUNTIME}", **variables)) == [expected]


@needs_gnu_runtime
def test_without_the_toolkit_the_runtime_spins_longer_than_the_limit():
    assert int(spin_counts(run_python(LOAD_RUNTIME))[0]) > int(LIMIT)


@needs_gnu_runtime
def test_processes_started_by_a_script_inherit_the_limit():
    done = run_python(f"import toolkit, subprocess, sys; subprocess.run([sys.executable, '-c', {LOAD_RUNTIME!r}])")
    assert spin_counts(done) == [LIMIT]


@needs_gnu_runtime
def test_doctor_shows_what_torch_has_read():
    done = run_python("from toolkit.cli.doctor import devices; print(devices())")
    assert set(spin_counts(done)) == {LIMIT}
    assert f"threads ({', '.join(f'{name}={value}' for name, value in SPIN_LIMITS.items())})" in done.stdout


@pytest.mark.skipif(OPENBLAS is None, reason="this NumPy has another BLAS than OpenBLAS")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, SPIN_LIMITS["OPENBLAS_THREAD_TIMEOUT"]),
        ({"OPENBLAS_THREAD_TIMEOUT": "22"}, "22"),
        ({"OMP_WAIT_POLICY": "passive"}, SPIN_LIMITS["OPENBLAS_THREAD_TIMEOUT"]),  # not read by OpenBLAS
    ],
)
def test_openblas_reads_the_limit_unless_the_user_sets_another(variables, expected):
    code = f"import toolkit, numpy, ctypes; print(ctypes.CDLL({str(OPENBLAS)!r}).openblas_thread_timeout())"
    assert run_python(code, **variables).stdout.strip() == expected


def test_doctor_does_not_show_a_limit_that_came_too_late():
    done = run_python("import torch; from toolkit.cli.doctor import devices; print(devices())")
    assert "threads (which spin as by default)" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs sessions of Linux")
@pytest.mark.parametrize("neighbour", ["steady", "short-apart"])
def test_the_benchmark_ends_its_other_work_when_it_is_interrupted(neighbour, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    from bench_neighbour import beside

    def children() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True))

    before = children()
    started = set[psutil.Process]()

    def interrupted() -> None:
        with beside(neighbour):
            started.update(children() - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started
    assert not any(process.is_running() for process in started)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs sessions of Linux")
def test_the_benchmark_runs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import bench_neighbour
    import benchmarking

    monkeypatch.setattr(benchmarking, "RESULTS", tmp_path)
    settings = {"after": SPIN_LIMITS, "before": bench_neighbour.LIBRARY_DEFAULTS}
    bench_neighbour.measure_steps(["resnet"], ["short-apart"], settings, rounds=1, seconds=1)
    found = json.loads((tmp_path / "bench_neighbour.json").read_text())["resnet beside short-apart"]
    assert min(found["medians"].values()) > 0
    assert found["medians of ratios to before"]["after"] == found["medians"]["after"] / found["medians"]["before"]
