"""Model folders and checkpoints, written to a temporary folder, synced and then renamed, so that each is complete.

Weights and optimizer states are safetensors; no pickle is written or read.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from toolkit.errors import InputError, RunFailed

STATE_FILE = "training_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
RECURRENT_STATE_FILE = "recurrent_state.safetensors"  # of a model that continues where the last step ended
MANIFEST_FILE = "manifest.json"  # size and SHA-256 of every other file of a checkpoint
REPEAT_OR_START_ANEW = "repeat the command that made it, or start anew with --overwrite_output_dir"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass
class TrainingState:
    """How far a run is, and what it needs to continue besides the weights and the state of the optimizer.

    The order of the data, masks, dropout and the learning rate follow from seed and step, so no random state is saved.
    """

    step: int = 0  # number of optimizer steps taken
    seconds: float = 0.0  # time taken so far
    log_bytes: int = 0  # size of the log
    best: dict[str, float] | None = None  # all metrics of the best evaluation
    num_evaluations: int = 0
    num_without_improvement: int = 0  # number of evaluations since the last improvement
    window_loss: float = 0.0  # since the last line of the log, summed over targets
    window_targets: float = 0.0  # number of these targets
    loss_scale: dict[str, float] = field(default_factory=dict)  # state of the float16 loss scaler
    data_order: dict[str, int] = field(default_factory=dict)  # what the order of the data depends on
    trained_parameters: list[str] = field(default_factory=list)  # names of the trainable parameters
    optim: str = "adamw"

    def note_evaluation(self, metrics: dict[str, float], metric: str | None) -> bool:
        """Count an evaluation. Returns whether its `metric` is the best so far; without one, the latest is the best.

        Weights that tie with the best replace them: they were trained longer, and ties are frequent with little
        validation data.
        """
        sign = -1 if metric == "loss" else 1
        gain = math.inf if self.best is None or metric is None else sign * (metrics[metric] - self.best[metric])
        self.num_evaluations += 1
        self.num_without_improvement = 0 if gain > 0 else self.num_without_improvement + 1
        if gain >= 0:
            self.best = metrics
        return gain >= 0


def save_model(folder: Path, model, processor=None, *, writes: bool = True) -> None:
    """Write a model and its processor in Hugging Face format into an existing folder, the weights last.

    All processes that share a sharded model must call this; only the one with `writes` writes files. Raises
    `RunFailed` if a file cannot be written.
    """
    weights = _unsharded(model.state_dict())
    if not writes:
        return
    with _temporary_folder(folder / ".partial", folder) as temporary:
        _write(temporary, model, processor, weights)
        for file in sorted(temporary.iterdir(), key=lambda file: file.suffix == ".safetensors"):
            os.replace(file, folder / file.name)
        temporary.rmdir()


def save_checkpoint(
    output_dir: Path,
    model,
    processor,
    optimizer,
    state: TrainingState,
    recurrent_state: torch.Tensor | None,
    num_kept: int,
    *,
    writes: bool,
) -> None:
    """Write the folder `checkpoint-STEP`, from which a run can continue, then delete all but the newest `num_kept`.

    All processes that share a sharded model must call this; only the one with `writes` writes files. Raises
    `RunFailed` if a file cannot be written; earlier checkpoints are left as they were.
    """
    weights = _unsharded(model.state_dict())
    moments = {
        f"{name}.{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }
    moments = _unsharded(moments)
    if not writes:
        return
    folder = output_dir / f"checkpoint-{state.step:08d}"
    with _temporary_folder(output_dir / f".{folder.name}.partial", folder) as temporary:
        _write(temporary, model, processor, weights)
        save_file(moments, temporary / OPTIMIZER_FILE)
        if recurrent_state is not None:
            save_file({"state": recurrent_state}, temporary / RECURRENT_STATE_FILE)
        (temporary / STATE_FILE).write_text(json.dumps(asdict(state), indent=2))
        files = sorted(temporary.iterdir())
        manifest = {file.name: {"size": file.stat().st_size, "sha256": _sha256(file)} for file in files}
        (temporary / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2))
        _sync(temporary)
        if folder.exists():  # a damaged one, which the run did not continue from
            shutil.rmtree(folder)
        os.replace(temporary, folder)
        _sync(output_dir)
    older = [path for path in list_checkpoints(output_dir) if path.name <= folder.name]
    for old in older[:-num_kept]:
        shutil.rmtree(old, ignore_errors=True)  # the next save tries again to delete what is left


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in output_dir.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name))


def newest_checkpoint(output_dir: Path) -> Path | None:
    """The newest complete checkpoint; None if there are no checkpoints. Raises `InputError` if all are damaged."""
    checkpoints = list_checkpoints(output_dir)
    for folder in reversed(checkpoints):
        fault = find_fault(folder)
        if fault is None:
            return folder
        print(f"{folder} is damaged: {fault}; going back to the one before")
    if checkpoints:
        raise InputError(f"{output_dir}: no checkpoint in it is whole; start anew with --overwrite_output_dir")
    return None


def how_to_continue(output_dir: Path) -> str:
    """The part of an error message that names the checkpoint from which a failed run can continue."""
    checkpoints = list_checkpoints(output_dir)
    return f"--resume goes on from {checkpoints[-1]}" if checkpoints else "there is no checkpoint to go on from"


def find_fault(folder: Path) -> str | None:
    """How a checkpoint differs from its manifest; None if it is complete."""
    try:
        files = json.loads((folder / MANIFEST_FILE).read_text())
        for name, expected in files.items():
            size = (folder / name).stat().st_size
            if size != expected["size"]:
                return f"{name} has {size:,} bytes instead of {expected['size']:,}"
            if _sha256(folder / name) != expected["sha256"]:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


def load_state(folder: Path, new: TrainingState) -> TrainingState:
    """How far the run was at a checkpoint. Raises `InputError` if it does not fit `new`, the state of a new run."""
    state = TrainingState(**json.loads((folder / STATE_FILE).read_text()))
    made_with = f"--resume: {folder} was made with"
    for name, value in new.data_order.items():
        if (found := state.data_order.get(name, 1)) != value:
            change = f"{name} {found:,}, not {value:,}, which changes the order of the data"
            raise InputError(f"{made_with} {change}; {REPEAT_OR_START_ANEW}")
    if state.trained_parameters != new.trained_parameters:
        raise InputError(f"{made_with} other trainable parameters; {REPEAT_OR_START_ANEW}")
    if state.optim != new.optim:
        raise InputError(f"{made_with} --optim {state.optim}; {REPEAT_OR_START_ANEW}")
    return state


def load_recurrent_state(folder: Path, device: torch.device) -> torch.Tensor | None:
    """The state that a recurrent model continues with, if the checkpoint has one."""
    file = folder / RECURRENT_STATE_FILE
    return load_file(file)["state"].to(device) if file.exists() else None


def load_weights(folder: Path, model) -> None:
    """Load the weights of a checkpoint, before the model is sharded. Raises `InputError` if they do not fit it."""
    try:
        found, report = type(model).from_pretrained(folder, local_files_only=True, output_loading_info=True)
        if report["missing_keys"] or report["unexpected_keys"]:
            raise RuntimeError("other names")
        model.load_state_dict(found.state_dict())
    except RuntimeError as error:  # what transformers and torch raise for other names or shapes
        raise InputError(f"--resume: {folder} holds another network; {REPEAT_OR_START_ANEW}") from error


def load_optimizer(folder: Path, model, optimizer) -> None:
    """Load the optimizer state of a checkpoint, after the model was sharded, if it is."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = {names[parameter]: index for index, parameter in enumerate(parameters)}
    restored: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / OPTIMIZER_FILE).items():
        name, _, moment = key.rpartition(".")
        parameter = parameters[indices[name]]
        if hasattr(parameter, "placements") and moment != "step":  # sharded over the processes
            from torch.distributed.tensor import distribute_tensor

            value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
        restored.setdefault(indices[name], {})[moment] = value
    optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})


def _unsharded(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Gather the tensors that are sharded over processes; tied tensors stay tied."""
    whole = dict(tensors)
    tied: dict[tuple, torch.Tensor] = {}
    for name, value in tensors.items():
        if hasattr(value, "full_tensor"):  # a DTensor
            whole[name] = value.full_tensor()
            if (part := value.to_local()).numel() > 0:
                whole[name] = tied.setdefault((part.data_ptr(), value.shape), whole[name])
    return whole


@contextlib.contextmanager
def _temporary_folder(folder: Path, target: Path) -> Iterator[Path]:
    """Create a folder to write `target` in; delete it and raise `RunFailed` if a file cannot be written.

    The parent folder is not created: if it is gone, a disk was unmounted or somebody deleted the run.
    """
    for left_by_a_kill in filter(Path.is_dir, folder.parent.glob(".*partial")):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    try:
        folder.mkdir()
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        # safetensors and tokenizers wrap the errors of the system in their own.
        if not isinstance(error, OSError | SafetensorError) and "os error" not in str(error):
            raise
        raise RunFailed(f"cannot save {target}: {error}; {how_to_continue(folder.parent)}") from error


def _write(folder: Path, model, processor, weights: dict[str, torch.Tensor]) -> None:
    model.save_pretrained(folder, state_dict=weights)
    if processor is not None:
        processor.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # safetensors makes files that only the owner can read
        shutil.copymode(folder / "config.json", file)
    _sync(folder)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        if path.is_file() or path == folder:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
