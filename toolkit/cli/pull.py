"""Download a model or data set from a Hub to a folder, complete and verified; no network is needed afterwards.

toolkit pull me/tagger runs/tagger
toolkit pull me/tagger runs/tagger_v1 --revision v1
toolkit pull me/my-data data/my-data --repo_type dataset
"""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.cli.flags import parse_flags
from toolkit.errors import check_positive
from toolkit.hub.download import MAX_GIGABYTES
from toolkit.hub.safety import Kind
from toolkit.runs.arguments import Arguments, to_flags


@dataclass(kw_only=True)
class PullArguments(Arguments):
    """flags"""

    repo_id: str
    """Repository, like org/name."""
    folder: str
    """Folder to download it to, which is created."""
    repo_type: Kind = "model"
    """model or dataset."""
    revision: str | None = None
    """Branch, tag or commit (default: the newest of main)."""
    skip_refused: bool = False
    """Leave out files that are refused, such as pickles, instead of refusing the repository."""
    max_gigabytes: float = MAX_GIGABYTES
    """Refuse a repository that is larger."""

    def check(self) -> None:
        check_positive(self, "max_gigabytes")


def parse(words: Sequence[str]) -> PullArguments:
    return parse_flags(words, PullArguments, "toolkit pull", __doc__, positionals=["repo_id", "folder"])


def run(arguments: PullArguments) -> None:
    from toolkit.hub.download import pull

    flags = {name: value for name, value in to_flags(arguments).items() if name != "repo_type"}
    commit = pull(kind=arguments.repo_type, **flags)
    print(f"{arguments.folder}: {arguments.repo_id} at commit {commit}, every file verified")
