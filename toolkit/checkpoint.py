"""Folders with weights: written aside, then renamed, so that one that is there is whole. No pickle anywhere."""

import json
import math
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from toolkit.errors import InputError

STATE_FILE = "training_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
NUM_KEPT = 2

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass
class TrainingState:
    """What, besides weights and optimiser, a run needs to go on. Order of data, masks and dropout follow from seed
    and step, so that no random state is kept."""

    step: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    best: dict[str, float] | None = None  # all figures of the best evaluation
    num_evaluations: int = 0
    num_without_gain: int = 0

    def note_evaluation(self, figures: dict[str, float], better: str) -> bool:
        """Whether nothing so far was better by the figure `better`, of which more is better unless it is a loss.

        Of equals the later weights are kept, which have learned longer; with little validation data many are equal.
        """
        sign = -1 if better == "loss" else 1
        gain = math.inf if self.best is None else sign * (figures[better] - self.best[better])
        self.num_evaluations += 1
        self.num_without_gain = 0 if gain > 0 else self.num_without_gain + 1
        if gain >= 0:
            self.best = figures
        return gain >= 0


def save_model(folder: Path, model, tokenizer=None) -> None:
    """Write `model` and `tokenizer` in Hugging Face format. Files that were there are replaced, weights last."""
    aside = folder / ".partial"
    shutil.rmtree(aside, ignore_errors=True)
    _write(aside, model, tokenizer)
    for file in sorted(aside.iterdir(), key=lambda file: file.suffix == ".safetensors"):
        os.replace(file, folder / file.name)
    aside.rmdir()


def save_checkpoint(output_dir: Path, model, tokenizer, optimizer, state: TrainingState) -> Path:
    """Write `checkpoint-STEP`, complete enough to go on from; all but the newest `NUM_KEPT` are deleted."""
    folder = output_dir / f"checkpoint-{state.step:08d}"
    aside = output_dir / f".{folder.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    _write(aside, model, tokenizer)
    tensors = {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    save_file(tensors, aside / OPTIMIZER_FILE)
    (aside / STATE_FILE).write_text(json.dumps(asdict(state), indent=2))
    _sync(aside)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(aside, folder)
    for old in list_checkpoints(output_dir)[:-NUM_KEPT]:
        shutil.rmtree(old)
    return folder


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in output_dir.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name))


def load_checkpoint(folder: Path, model, optimizer) -> TrainingState:
    """Put weights and optimiser back to where they were when `folder` was saved."""
    try:
        model.load_state_dict(type(model).from_pretrained(folder, local_files_only=True).state_dict())
        tensors = load_file(folder / OPTIMIZER_FILE)
        state = TrainingState(**json.loads((folder / STATE_FILE).read_text()))
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(
            f"{folder}: cannot go on from this checkpoint ({first_line}); delete it to use the one before"
        ) from None
    restored: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        restored.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})
    return state


def _write(folder: Path, model, tokenizer) -> None:
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # safetensors lets the owner alone read them
        shutil.copymode(folder / "config.json", weights)
    _sync(folder)


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
