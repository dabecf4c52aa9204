"""Pretrain an encoder on a corpus: source, tokenizer, preset, objective and training put together.

`PRETRAINING` maps each method to its flags and its function. Importing this package loads no torch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from toolkit.errors import InputError
from toolkit.pretraining.arguments import (
    BertArguments,
    ElectraArguments,
    ElmoArguments,
    FastTextArguments,
    GoogLeNetArguments,
    LeNetArguments,
    MlpArguments,
    PrototypicalArguments,
    ResNetArguments,
    SimCLRArguments,
    ViTArguments,
    ViTMAEArguments,
    Word2VecArguments,
)
from toolkit.pretraining.images import pretrain_on_labels, pretrain_prototypical, pretrain_simclr, pretrain_vit_mae
from toolkit.pretraining.text import (
    pretrain_bert,
    pretrain_electra,
    pretrain_elmo,
    pretrain_fasttext,
    pretrain_word2vec,
)

PRETRAINING: dict[str, tuple[type, Callable]] = {
    "word2vec": (Word2VecArguments, pretrain_word2vec),
    "fasttext": (FastTextArguments, pretrain_fasttext),
    "elmo": (ElmoArguments, pretrain_elmo),
    "bert": (BertArguments, pretrain_bert),
    "electra": (ElectraArguments, pretrain_electra),
    "resnet": (ResNetArguments, partial(pretrain_on_labels, "resnet")),
    "googlenet": (GoogLeNetArguments, partial(pretrain_on_labels, "googlenet")),
    "lenet": (LeNetArguments, partial(pretrain_on_labels, "lenet")),
    "vit": (ViTArguments, partial(pretrain_on_labels, "vit")),
    "mlp": (MlpArguments, partial(pretrain_on_labels, "mlp")),
    "simclr": (SimCLRArguments, pretrain_simclr),
    "vit-mae": (ViTMAEArguments, pretrain_vit_mae),
    "prototypical": (PrototypicalArguments, pretrain_prototypical),
}


def pretrain(method: str, **flags: Any) -> dict[str, Any]:
    """Pretrain an encoder by one of the methods of `PRETRAINING`, with `flags` as in `toolkit pretrain METHOD --help`.

    Leaves the checkpoint in `output_dir` and returns the record that stands in its `results.json`; with `resume` that
    of a run which stands there finished.
    """
    if method not in PRETRAINING:
        raise InputError(f"unknown method '{method}', expected one of {', '.join(PRETRAINING)}")
    return run(method, PRETRAINING[method][0](**flags))


def run(method: str, arguments: Any) -> dict[str, Any]:
    """The same, from the dataclass of the flags."""
    from toolkit.hub.upload import share
    from toolkit.reports.results import finished_run

    record = finished_run(arguments) if hasattr(arguments, "resume") else None
    record = record or PRETRAINING[method][1](arguments)
    share(arguments)
    return record
