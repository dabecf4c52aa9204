"""Check this machine, and with --hub the Hub, and say what to do where something fails.

toolkit doctor
toolkit doctor --hub
HF_ENDPOINT=https://hub.example.org HF_TOKEN=… toolkit doctor --hub
"""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.cli.flags import parse_flags
from toolkit.errors import RunFailed
from toolkit.runs.arguments import Arguments


@dataclass(kw_only=True)
class DoctorArguments(Arguments):
    """flags"""

    hub: bool = False
    """Also send to the Hub of HF_ENDPOINT and pull from it, in a private repository that is deleted afterwards."""


def parse(words: Sequence[str]) -> DoctorArguments:
    return parse_flags(words, DoctorArguments, "toolkit doctor", __doc__)


def run(arguments: DoctorArguments) -> None:
    from toolkit.cli.checks import examine

    failed = []
    for check in examine(arguments.hub):
        print(f"{check.outcome:<8}{check.name:<14}{check.said}", flush=True)
        failed += [check.name] if check.outcome == "failed" else []
    if failed:
        raise RunFailed(f"failed: {', '.join(failed)}; each line above says what to do")
