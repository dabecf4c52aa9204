"""Send a model, tokenizer, few-shot classifier or data set to a Hub, with a card.

toolkit push runs/tagger me/tagger --dry_run
toolkit push runs/tagger me/tagger --private --with_code --tag v1
toolkit push my_data/ me/my-data --repo_type dataset
HF_ENDPOINT=https://hub.example.org HF_TOKEN=… toolkit push runs/bert me/bert
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.cli.flags import parse_flags
from toolkit.hub.safety import Kind
from toolkit.runs.arguments import Arguments


@dataclass(kw_only=True)
class PushArguments(Arguments):
    """flags"""

    folder: str
    """Folder of a model, a tokenizer, a few-shot classifier or a data set."""
    repo_id: str
    """Repository, like org/name; it is made where there is none."""
    repo_type: Kind = "model"
    """model or dataset."""
    private: bool = False
    """Make the repository private, and send nothing where it is not."""
    revision: str | None = None
    """Branch to send to; it is made where there is none (default: main)."""
    tag: str | None = None
    """Name the new commit, such as v1."""
    message: str | None = None
    """Message of the commit (default: says the folder's name)."""
    with_code: bool = False
    """Send the model's source too: with trust_remote_code=True it then loads where toolkit is not installed."""
    dry_run: bool = False
    """List what would be sent, and send nothing."""


def parse(words: Sequence[str]) -> PushArguments:
    return parse_flags(words, PushArguments, "toolkit push", __doc__, positionals=["folder", "repo_id"])


def run(arguments: PushArguments) -> None:
    from toolkit.hub import upload

    folder, repo_id, kind, with_code = arguments.folder, arguments.repo_id, arguments.repo_type, arguments.with_code
    if arguments.dry_run:
        plan = upload.plan_push(folder, repo_id, kind, with_code)
        for path in plan.files:
            print(f"{plan.size(path):>14,}  {path}")
        print(f"{sum(map(plan.size, plan.files)):>14,}  bytes in {len(plan.files)} files would go to {repo_id}")
    else:
        flags = {name: getattr(arguments, name) for name in ("private", "revision", "tag", "message")}
        pushed = upload.push(folder, repo_id, kind=kind, with_code=with_code, **flags)
        plan = pushed.plan
        print(f"{pushed.address}: {len(plan.files)} files, commit {pushed.commit}")
    if plan.left_out:
        print(f"not sent: {', '.join(plan.left_out)}")
    if kind == "model" and not with_code and upload.source_code(Path(folder)):
        print("it loads where toolkit is installed; with --with_code it would elsewhere too")
