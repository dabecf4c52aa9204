"""Folders with weights: written aside, synced, then renamed, so that what is there is whole. No pickle anywhere."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from toolkit.errors import InputError, RunFailed

STATE_FILE = "training_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
CARRIED_FILE = "carried.safetensors"  # what the model hands on to the next step, if it does
MANIFEST_FILE = "manifest.json"  # size and SHA-256 of every other file of a checkpoint
REPEAT_OR_START_ANEW = "repeat the command that made it, or start anew with --overwrite_output_dir"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass
class TrainingState:
    """What, besides weights and optimiser, a run needs to go on. Order of data, masks, dropout and learning rate
    follow from seed and step, so that no random state is kept."""

    step: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    best: dict[str, float] | None = None  # all figures of the best evaluation
    num_evaluations: int = 0
    num_without_gain: int = 0
    window_loss: float = 0.0  # since the last line of the log, summed over targets
    window_targets: float = 0.0
    loss_scale: dict[str, float] = field(default_factory=dict)  # of float16
    order: dict[str, int] = field(default_factory=dict)  # what the order of the data follows from
    trained: list[str] = field(default_factory=list)  # the names of the parameters that learn
    optim: str = "adamw"

    def note_evaluation(self, figures: dict[str, float], better: str | None) -> bool:
        """Whether nothing so far was better by the figure `better`, of which more is better unless it is a loss; with
        None later is better.

        Of equals the later weights are kept, which have learned longer; with little validation data many are equal.
        """
        sign = -1 if better == "loss" else 1
        gain = math.inf if self.best is None or better is None else sign * (figures[better] - self.best[better])
        self.num_evaluations += 1
        self.num_without_gain = 0 if gain > 0 else self.num_without_gain + 1
        if gain >= 0:
            self.best = figures
        return gain >= 0


def save_model(folder: Path, model, processor=None, *, writes: bool = True) -> None:
    """Write `model` and `processor` in Hugging Face format. Files that were there are replaced, weights last.

    Where processes share the parameters of a model out among them, all of them must call this, one of them writing.
    """
    weights = _whole(model.state_dict())
    if not writes:
        return
    with _aside(folder, folder / ".partial") as aside:
        _write(aside, model, processor, weights)
        for file in sorted(aside.iterdir(), key=lambda file: file.suffix == ".safetensors"):
            os.replace(file, folder / file.name)
        aside.rmdir()


def save_checkpoint(
    output_dir: Path,
    model,
    processor,
    optimizer,
    state: TrainingState,
    carried: torch.Tensor | None = None,
    num_kept: int = 2,
    *,
    writes: bool = True,
) -> None:
    """Write `checkpoint-STEP`, complete enough to go on from, and delete all but the newest `num_kept` before it.

    `carried` is what the model has given for the step that follows.
    Raises `RunFailed` where it cannot be written; what was there before then stays. `writes` as in `save_model`.
    """
    weights = _whole(model.state_dict())
    names = {parameter: name for name, parameter in model.named_parameters()}
    moments = _whole(
        {
            f"{names[parameter]}.{moment}": value
            for parameter, values in optimizer.state.items()
            for moment, value in values.items()
        }
    )
    if not writes:
        return
    folder = output_dir / f"checkpoint-{state.step:08d}"
    with _aside(folder, output_dir / f".{folder.name}.partial") as aside:
        _write(aside, model, processor, weights)
        save_file(moments, aside / OPTIMIZER_FILE)
        if carried is not None:
            save_file({"state": carried}, aside / CARRIED_FILE)
        (aside / STATE_FILE).write_text(json.dumps(asdict(state), indent=2))
        files = {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(aside.iterdir())}
        (aside / MANIFEST_FILE).write_text(json.dumps(files, indent=2))
        _sync(aside)
        if folder.exists():  # a damaged one, gone back behind
            shutil.rmtree(folder)
        os.replace(aside, folder)
        _sync(output_dir)
    older = [path for path in list_checkpoints(output_dir) if path.name <= folder.name]
    for old in older[:-num_kept]:
        shutil.rmtree(old, ignore_errors=True)  # of what stays the next save tries again


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in output_dir.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name))


def newest_checkpoint(output_dir: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole; `say` is told of damaged ones. None where there is none at all.

    Raises `InputError` where every one is damaged.
    """
    checkpoints = list_checkpoints(output_dir)
    for folder in reversed(checkpoints):
        fault = find_fault(folder)
        if fault is None:
            return folder
        say(f"{folder} is damaged: {fault}; going back to the one before")
    if checkpoints:
        raise InputError(f"{output_dir}: no checkpoint in it is whole; start anew with --overwrite_output_dir")
    return None


def way_on(output_dir: Path) -> str:
    """Half a sentence on where a run that failed can go on."""
    checkpoints = list_checkpoints(output_dir)
    return f"--resume goes on from {checkpoints[-1]}" if checkpoints else "there is no checkpoint to go on from"


def find_fault(folder: Path) -> str | None:
    """In what the files of a checkpoint differ from its manifest."""
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


def load_state(folder: Path) -> TrainingState:
    return TrainingState(**json.loads((folder / STATE_FILE).read_text()))


def load_carried(folder: Path, device: torch.device) -> torch.Tensor | None:
    file = folder / CARRIED_FILE
    return load_file(file)["state"].to(device) if file.exists() else None


def load_weights(folder: Path, model) -> None:
    """Put the weights back to where they were; before they are shared out to processes.

    Raises `InputError` where they are those of another network.
    """
    try:
        found, report = type(model).from_pretrained(folder, local_files_only=True, output_loading_info=True)
        if report["missing_keys"] or report["unexpected_keys"]:
            raise RuntimeError("other names")
        model.load_state_dict(found.state_dict())
    except RuntimeError as error:  # transformers and torch say by it that names or shapes differ
        raise InputError(f"--resume: {folder} holds another network; {REPEAT_OR_START_ANEW}") from error


def load_optimizer(folder: Path, model, optimizer) -> None:
    """Put the optimiser back to where it was; after the parameters were shared out, if they are."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = {names[parameter]: index for index, parameter in enumerate(parameters)}
    restored: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / OPTIMIZER_FILE).items():
        name, _, moment = key.rpartition(".")
        index = indices[name]
        restored.setdefault(index, {})[moment] = value if moment == "step" else _like(parameters[index], value)
    optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})


def _whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that processes share out among them, as every one of them has them when put together."""
    if not torch.distributed.is_initialized():
        return tensors
    from torch.distributed.tensor import DTensor

    whole: dict[str, torch.Tensor] = {}
    tied: dict[tuple, torch.Tensor] = {}
    for name, value in tensors.items():
        whole[name] = value.full_tensor() if isinstance(value, DTensor) else value
        if isinstance(value, DTensor) and (part := value.to_local()).numel() > 0:
            whole[name] = tied.setdefault((part.data_ptr(), value.shape), whole[name])  # tied ones stay one
    return whole


def _like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`value` shared out among processes as `parameter` is."""
    if not torch.distributed.is_initialized():
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


@contextlib.contextmanager
def _aside(target: Path, aside: Path) -> Iterator[Path]:
    """A new folder for what becomes `target`. Where that fails nothing of it stays, and what went wrong is said.

    The folder of the run is not made again: one that vanished is a disk that went away, or somebody's wish.
    """
    for left_by_a_kill in filter(Path.is_dir, aside.parent.glob(".*partial")):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    try:
        aside.mkdir()
        yield aside
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        # safetensors and tokenizers hide the system's errors in their own
        if not isinstance(error, OSError | SafetensorError) and "os error" not in str(error):
            raise
        raise RunFailed(f"cannot save {target}: {error}; {way_on(aside.parent)}") from error


def _write(folder: Path, model, processor, weights: dict[str, torch.Tensor]) -> None:
    model.save_pretrained(folder, state_dict=weights)
    if processor is not None:
        processor.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # safetensors lets the owner alone read them
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
