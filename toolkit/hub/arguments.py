"""The flag with which a training command pushes its output folder. Imports nothing heavy."""

from dataclasses import dataclass

from toolkit.hub.safety import check_repo_id
from toolkit.runs.arguments import Arguments


@dataclass(kw_only=True)
class HubArguments(Arguments):
    """Hub"""

    push_to_hub: str | None = None
    """Push the finished run to this repository of a Hub, like org/name; if that fails, a warning says how to retry."""

    def check(self) -> None:
        if self.push_to_hub is not None:
            check_repo_id(self.push_to_hub, "--push_to_hub")
