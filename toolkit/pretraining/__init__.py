"""Pretrain an encoder on a corpus: one file per method, read from top to bottom.

The methods are those named in the rows of `FAMILIES`, and those that pretrain any encoder of images or recordings.
Importing this package loads no torch.
"""

import pkgutil
from typing import Any

from toolkit.errors import InputError
from toolkit.models.families import FAMILIES
from toolkit.pretraining.method import Method
from toolkit.runs.arguments import from_flags

__all__ = ["Method", "get_method", "method_names", "pretrain", "run_method"]

OF_ANY_ENCODER = {  # the modality, and where to find the method
    "simclr": ("image", "toolkit.pretraining.simclr:METHOD"),
    "vit-mae": ("image", "toolkit.pretraining.vit_mae:METHOD"),
    "prototypical": ("image", "toolkit.pretraining.prototypical:METHOD"),
    "audio-simclr": ("audio", "toolkit.pretraining.audio_simclr:METHOD"),
}


def method_names() -> list[str]:
    """The methods that `toolkit pretrain` offers."""
    return [*(name for name, family in FAMILIES.items() if family.method is not None), *OF_ANY_ENCODER]


def get_method(name: str) -> Method:
    """The method of that name. Raises `InputError` if there is none."""
    if name not in method_names():
        raise InputError(f"unknown method '{name}', expected one of {', '.join(method_names())}")
    method = OF_ANY_ENCODER[name][1] if name in OF_ANY_ENCODER else FAMILIES[name].method
    return pkgutil.resolve_name(method) if isinstance(method, str) else method


def pretrain(method: str, **flags: Any) -> dict[str, Any]:
    """Pretrain an encoder, with `flags` as in `toolkit pretrain METHOD --help`.

    Leaves the checkpoint in `output_dir` and returns the record in its `results.json`; with `resume=True`, that of a
    finished run in the folder.

    Raises:
        InputError: There is no such method, or a flag or the data is wrong.
    """
    return run_method(method, from_flags(get_method(method).arguments, **flags))


def run_method(method: str, arguments: Any) -> dict[str, Any]:
    """Like `pretrain`, from the data class of the method's flags."""
    from toolkit.hub.upload import push_run
    from toolkit.runs.output import claimed
    from toolkit.runs.results import finished_run, say_finished

    with claimed(arguments.output):
        if (record := finished_run(arguments)) is None:
            record = get_method(method).run(arguments)
        else:
            say_finished(arguments.output.output_dir)
    push_run(arguments.output.output_dir, arguments.hub.push_to_hub)
    return record
