"""Send a model, tokenizer, few-shot classifier or data set to a Hub, with a card.

toolkit push runs/tagger me/tagger --dry_run
toolkit push runs/tagger me/tagger --private --with_code --tag v1
toolkit push my_data/ me/my-data --repo_type dataset
HF_ENDPOINT=https://hub.example.org HF_TOKEN=… toolkit push runs/bert me/bert
"""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.cli.flags import parse_flags
from toolkit.hub.safety import Kind
from toolkit.runs.arguments import Arguments, to_flags


@dataclass(kw_only=True)
class PushArguments(Arguments):
    """flags"""

    folder: str
    """Folder of a model, a tokenizer, a few-shot classifier or a data set."""
    repo_id: str
    """Repository, like org/name; it is created if necessary."""
    repo_type: Kind = "model"
    """model or dataset."""
    private: bool = False
    """Create the repository as private, and send nothing if it is public."""
    revision: str | None = None
    """Branch to send to, created if necessary (default: main)."""
    tag: str | None = None
    """Name the new commit, such as v1."""
    message: str | None = None
    """Message of the commit (default: one with the folder's name)."""
    with_code: bool = False
    """Also send the model's source, so that trust_remote_code=True loads it where toolkit is not installed."""
    dry_run: bool = False
    """List what would be sent, and send nothing."""


def parse(words: Sequence[str]) -> PushArguments:
    return parse_flags(words, PushArguments, "toolkit push", __doc__, positionals=["folder", "repo_id"])


def run(arguments: PushArguments) -> None:
    from toolkit.hub import upload

    kind = arguments.repo_type
    if arguments.dry_run:
        plan = upload.plan_push(arguments.folder, arguments.repo_id, kind, arguments.with_code)
        for path in plan.files:
            print(f"{plan.size(path):>14,}  {path}")
        total = sum(map(plan.size, plan.files))
        print(f"{total:>14,}  bytes in {len(plan.files)} files would go to {arguments.repo_id}")
    else:
        flags = {name: value for name, value in to_flags(arguments).items() if name not in ("repo_type", "dry_run")}
        address, commit, plan = upload.push(kind=kind, **flags)
        print(f"{address}: {len(plan.files)} files, commit {commit}")
    if plan.left_out:
        print(f"not sent: {', '.join(plan.left_out)}")
    if kind == "model" and not arguments.with_code and upload.source_code(plan.folder):
        print("it loads where toolkit is installed; with --with_code it would elsewhere too")
