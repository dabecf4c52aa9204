"""`toolkit doctor` reports what works, and gives advice for what fails."""

import pytest
from conftest import run_toolkit

from toolkit.cli import doctor

HUB_CHECKS = ["endpoint", "login", "create", "privacy", "small upload", "large upload", "pull", "clean-up"]


@pytest.fixture
def without_processes(monkeypatch):
    """Leave out the check that starts two processes, which takes seconds."""

    def processes() -> str:
        return "left out"

    monkeypatch.setattr(doctor, "processes", processes)


def outcomes(stdout: str) -> dict[str, tuple[str, str]]:
    """The status (ok, failed or skipped) and message of each check, by name."""
    return {line[8:22].strip(): (line[:8].strip(), line[22:]) for line in stdout.splitlines()}


def test_doctor_checks_machine_and_hub_and_leaves_nothing_behind(hub):
    done = hub.run("doctor", "--hub")
    found = outcomes(done.stdout)
    assert list(found) == ["versions", "devices", "processes", "disk", "caches", *HUB_CHECKS]
    assert "torch 2." in found["versions"][1]
    assert {found[name][0] for name in ("versions", "processes", *HUB_CHECKS)} == {"ok"}
    assert (done.returncode == 0) == all(outcome == "ok" for outcome, _ in found.values())
    assert "HF_HUB_DISABLE_XET=1" in found["large upload"][1]
    assert not [model.id for model in hub.api().list_models() if "doctor" in model.id]
    assert [request for request in hub.seen() if request["method"] == "PUT" and request["size"] == 12_000_000]


@pytest.mark.parametrize(
    ("variables", "failed", "advice"),
    [
        ({"HF_TOKEN": "hf_nobody"}, "login", "HF_TOKEN does not allow it"),
        pytest.param({"HF_TOKEN": ""}, "login", "set HF_TOKEN", marks=pytest.mark.slow),
        pytest.param({"HF_HUB_OFFLINE": "1"}, "endpoint", "unset it", marks=pytest.mark.slow),
        pytest.param({"HF_ENDPOINT": "http://127.0.0.1:9"}, "endpoint", "check HF_ENDPOINT", marks=pytest.mark.slow),
    ],
)
def test_doctor_names_faults_of_the_connection_to_the_hub(hub, without_processes, variables, failed, advice):
    if "HF_ENDPOINT" in variables:  # which the libraries read when they are loaded
        done = run_toolkit("doctor", "--hub", **{**hub.environment, **variables})
    else:
        done = hub.run("doctor", "--hub", **variables)
    found = outcomes(done.stdout)
    assert done.returncode == 1
    assert found[failed][0] == "failed"
    assert advice in found[failed][1]
    assert {found[name][0] for name in HUB_CHECKS[HUB_CHECKS.index(failed) + 1 : -1]} == {"skipped"}
    assert f"failed: {failed}" in done.stderr


def test_doctor_detects_a_hub_that_shows_private_repositories(hub, without_processes):
    hub.spoil("open", match="create")
    try:
        found = outcomes(hub.run("doctor", "--hub").stdout)
    finally:
        hub.spoil()
    assert found["privacy"][0] == "failed"
    assert found["pull"][0] == "skipped"
    assert found["clean-up"][0] == "ok"
