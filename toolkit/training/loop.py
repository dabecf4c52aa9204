"""The training loop, on Accelerate: everything that is trained goes through `train`.

Which examples a step takes, how they are masked and where dropout falls follows from the seed and the number of the
step alone, and for dropout also from the process. That is what makes a run repeatable, resumable in seconds and, but
for dropout, the same however many processes share it.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, send_to_device

from toolkit.errors import InputError, Interrupted
from toolkit.runs.progress import Progress
from toolkit.runs.results import LOG_FILE
from toolkit.training.arguments import TrainingArguments
from toolkit.training.checkpoints import (
    REPEAT_OR_START_ANEW,
    TrainingState,
    load_carried,
    load_optimizer,
    load_state,
    load_weights,
    newest_checkpoint,
    save_checkpoint,
    save_model,
)
from toolkit.training.distributed import (
    adapt_to_deepspeed,
    agree,
    join_over_processes,
    keep_freed_memory,
    knows_bfloat16,
    make_accelerator,
    norm_before_clipping,
    on_main_process,
    share_out,
    sum_over_processes,
)
from toolkit.training.loader import Batch, Collate, StreamedDataset, load_batches
from toolkit.training.optimizers import MuonWithAdamW, ParameterOptions, matrices_of_layers
from toolkit.training.sampler import BatchSampler, SampleKey, seed_torch, split_batch
from toolkit.training.signals import Signals, failures_explained

SAVE_SECONDS = 600  # between checkpoints, where no flag says how many steps


@dataclass(frozen=True)
class Budget:
    """When a run ends, and how far it is: whichever limit comes first."""

    max_steps: int | None = None
    max_minutes: float | None = None
    max_samples: int | None = None  # the last step of an epoch budget may hold fewer examples than the others

    @classmethod
    def of(cls, arguments: TrainingArguments, num_samples: int) -> "Budget":
        limits = (arguments.max_steps, arguments.num_train_epochs, arguments.max_minutes)
        if all(limit is None for limit in limits):
            raise InputError("how long to train? give --max_steps, --num_train_epochs or --max_minutes")
        if arguments.num_train_epochs is None:
            return cls(arguments.max_steps, arguments.max_minutes)
        max_samples = max(1, round(arguments.num_train_epochs * num_samples))
        steps = math.ceil(max_samples / arguments.batch_size)
        return cls(min(steps, arguments.max_steps or steps), arguments.max_minutes, max_samples)

    def progress(self, step: int, seconds: float) -> float:
        """From 0 at the start to 1 at the end."""
        shares = [0.0]
        if self.max_steps is not None:
            shares.append(step / self.max_steps)
        if self.max_minutes is not None:
            shares.append(seconds / (60 * self.max_minutes))
        return min(1.0, max(shares))


def learning_rate_factor(progress: float, warmup_ratio: float, start: float = 0.0) -> float:
    """0 until `start`, linear from 0 to 1 within the warm-up of what is left, then linear to 0 at the end."""
    progress = max(0.0, progress - start) / (1 - start)
    if progress < warmup_ratio:
        return progress / warmup_ratio
    return (1 - progress) / (1 - warmup_ratio)


@dataclass(frozen=True)
class TrainingResult:
    num_steps: int
    seconds: float
    throughput: float  # items a second; the time includes evaluation and saving
    deterministic: bool


def train(
    model,
    rows,
    collate: Collate,
    arguments: TrainingArguments,
    output_dir: str | Path,
    *,
    best_dir: Path | None = None,
    processor=None,
    lengths: Sequence[int] | None = None,
    evaluate: Callable[[Accelerator], dict[str, float]] | None = None,
    better: str | None = "loss",
    item: str = "token",
    num_evaluations: int = 10,
    consecutive: int = 1,
    options: Callable[[str], ParameterOptions] = lambda name: ParameterOptions(),
) -> TrainingResult:
    """Train `model` and leave it, with its processor, in `output_dir`.

    Args:
        model: a `PreTrainedModel` whose output has a `loss`, the mean over the batch's `num_targets`.
        rows: a `datasets.Dataset`, or a `StreamedDataset`.
        collate: from rows and their keys to a batch.
        best_dir: where to leave it instead.
        lengths: of the rows, to batch similar ones together.
        evaluate: gives figures; the weights that do best by the figure `better` are kept. A figure called `loss` is
            better when lower, any other when higher. Without the one or the other the last weights are kept.
        item: what throughput counts, for the log.
        num_evaluations: in the run, where `arguments.eval_steps` does not say.
        consecutive: so many neighbouring rows follow each other in as many steps, each with the `state` (examples, …)
            of the output for the one before. Batches have to divide evenly among processes and accumulation steps.
        options: the options of the parameter of a name.

    Raises `InputError` where there is nothing to train on or the loss is no number, `Interrupted` after a signal.
    """
    if len(rows) == 0:
        raise InputError("there is no example to train on")
    output_dir = Path(output_dir)
    best_dir = best_dir or output_dir
    accelerator = make_accelerator(arguments.report_to, output_dir)
    is_main = accelerator.is_main_process
    budget = Budget.of(arguments, len(rows))
    num_parts = arguments.gradient_accumulation_steps
    num_shares = accelerator.num_processes * num_parts
    mine = slice(accelerator.process_index * num_parts, (accelerator.process_index + 1) * num_parts)
    sampler = BatchSampler(
        len(rows),
        arguments.batch_size,
        arguments.seed,
        lengths,
        budget.max_samples,
        consecutive,
        shuffles=not isinstance(rows, StreamedDataset),
    )
    order = {
        "num_examples": len(rows),
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "consecutive": consecutive,
    }
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    wrapped, optimizer, state, carried = _prepare(model, arguments, output_dir, order, options, accelerator)
    log_path = output_dir / LOG_FILE if is_main else Path(os.devnull)
    if is_main:
        best_dir.mkdir(parents=True, exist_ok=True)
        _truncate(log_path, state.log_bytes)
    if state.step == 0:
        save_model(best_dir, model, processor, writes=is_main)  # killed at any moment it leaves a loadable folder

    dtype = torch.bfloat16 if arguments.bf16 else torch.float16
    precision = torch.autocast(accelerator.device.type, dtype, enabled=arguments.bf16 or arguments.fp16)
    can_resume = accelerator.distributed_type != DistributedType.DEEPSPEED
    states: list[torch.Tensor | None] = [None] * num_parts
    if carried is not None:
        states = list(carried.chunk(num_shares)[mine])

    resumed_at = seconds = saved_at = state.seconds

    def my_batches(step: int) -> Iterator[list[SampleKey]]:
        while budget.max_steps is None or step < budget.max_steps:
            keys = sampler.batch(step, budget.progress(step, seconds))
            yield from split_batch(keys, accelerator.num_processes * num_parts)[mine]
            step += 1

    batches = load_batches(rows, my_batches(state.step), collate, arguments.dataloader_num_workers)
    start = time.monotonic() - resumed_at
    progress = budget.progress(state.step, seconds)
    num_items = 0
    window = _Window(state.window_loss if is_main else 0.0, state.window_targets)
    with (
        failures_explained(output_dir),
        Signals() as signals,
        open(log_path, "a", encoding="utf-8") as log,
        Progress(budget.max_steps, budget.max_minutes, enabled=is_main) as progress_bar,
        _tracking(accelerator, arguments, output_dir),
    ):

        def report(**figures) -> None:
            print(json.dumps({"step": state.step, **figures}), file=log, flush=True)
            accelerator.log(figures, step=state.step)
            progress_bar.show(state.step, figures)

        wrapped.train()
        while progress < 1:
            for group in optimizer.param_groups:
                factor = learning_rate_factor(progress, arguments.warmup_ratio, group["start"])
                group["lr"] = arguments.learning_rate * group["scale"] * factor
            seed_torch(arguments.seed, state.step, accelerator.process_index)  # of dropout

            loss_sum, num_targets, step_items = _add_gradients(
                wrapped, list(islice(batches, num_parts)), states, precision, accelerator
            )
            if arguments.fp16:  # accelerate unscales only what its own flag has scaled
                accelerator.scaler.unscale_(optimizer.optimizer)
            norm = accelerator.clip_grad_norm_(wrapped.parameters(), arguments.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()

            state.step += 1
            num_items += int(step_items)
            window.add(loss_sum, num_targets, step_items)
            seconds, signal_number = agree(accelerator, time.monotonic() - start, signals.number)
            progress = budget.progress(state.step, seconds)
            progress_bar.advance(state.step, seconds)

            if state.step % arguments.logging_steps == 0 or progress >= 1:
                mean_loss = window.mean_loss(accelerator)
                if not math.isfinite(mean_loss):
                    raise InputError(f"the loss is {mean_loss} at step {state.step}; try a lower --learning_rate")
                epoch = state.step * arguments.batch_size / len(rows)
                rates = {
                    "learning_rate": max(group["lr"] for group in optimizer.param_groups),
                    "grad_norm": norm_before_clipping(norm),
                    f"{item}s_per_second": window.items / (time.monotonic() - window.start),
                }
                report(loss=mean_loss, epoch=epoch, seconds=seconds, **rates)
                window = _Window()
            if evaluate is not None and _evaluation_is_due(arguments, state, progress, num_evaluations):
                with precision:
                    figures = _evaluate(evaluate, model, accelerator)
                report(seconds=seconds, **{f"validation_{name}": value for name, value in figures.items()})
                if state.note_evaluation(figures, better):
                    save_model(best_dir, model, processor, writes=is_main)
                patience = arguments.early_stopping_patience
                if patience is not None and state.num_without_gain >= patience:
                    break
            if _save_is_due(arguments, state, seconds - saved_at, signal_number) and can_resume:
                if is_main:
                    os.fsync(log.fileno())  # before a checkpoint that counts on it
                state.seconds, state.log_bytes, saved_at = seconds, log.tell(), seconds
                state.window_loss, state.window_targets = window.loss_sum(accelerator), window.targets
                state.loss_scale = {} if accelerator.scaler is None else accelerator.scaler.state_dict()
                carried, num_kept = join_over_processes(accelerator, states), arguments.save_total_limit
                save_checkpoint(output_dir, model, processor, optimizer, state, carried, num_kept, writes=is_main)
            if signal_number:
                accelerator.wait_for_everyone()  # a process that ends early takes down the one that still writes
                name = signal.Signals(signal_number).name
                how = "go on with the same command and --resume" if can_resume else "DeepSpeed cannot go on"
                message = f"stopped by {name} after step {state.step}, saved in {output_dir}; {how}"
                raise Interrupted(message, signal_number)
    if evaluate is None:
        save_model(best_dir, model, processor, writes=is_main)
    accelerator.wait_for_everyone()
    return TrainingResult(
        num_steps=state.step,
        seconds=seconds,
        throughput=num_items / max(seconds - resumed_at, 1e-9),
        deterministic=arguments.max_minutes is None and accelerator.device.type == "cpu",
    )


def _prepare(
    model, arguments: TrainingArguments, output_dir: Path, order: dict[str, int], options, accelerator: Accelerator
) -> tuple[Any, Any, TrainingState, torch.Tensor | None]:
    """Model, optimiser, state and what the model carries on, as in the checkpoint if there is one to go on from."""
    model.to(accelerator.device)
    if arguments.bf16 and accelerator.device.type == "cpu":
        if not knows_bfloat16(accelerator.device):
            accelerator.print("--bf16: this processor does not know bfloat16, far slower there than to leave it out")
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation("eager")  # sdpa is slower there, mostly backwards
    if arguments.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise InputError(f"--gradient_checkpointing: {type(model).__name__} cannot do it")
        model.gradient_checkpointing_enable()
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        adapt_to_deepspeed(accelerator, arguments)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    start = TrainingState(order=order, trained=trained, optim=arguments.optim)
    state, checkpoint = _find_checkpoint(arguments, output_dir, start, accelerator)
    if checkpoint is not None:
        load_weights(checkpoint, model)
    is_shared_out = accelerator.is_fsdp2  # on CPUs accelerate forgets it at `prepare`
    if is_shared_out:
        share_out(model, accelerator.state.fsdp_plugin)
    optimizer = _make_optimizer(model, arguments, options, accelerator)
    if arguments.fp16:
        accelerator.scaler = torch.amp.GradScaler(accelerator.device.type)
    groups = [list(group["params"]) for group in optimizer.param_groups]
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    if is_shared_out:  # accelerate finds them again by address, and all parts without a row have one
        for group, parameters in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = parameters
    if checkpoint is not None:
        load_optimizer(checkpoint, model, optimizer)
    if accelerator.scaler is not None and state.loss_scale:
        accelerator.scaler.load_state_dict(state.loss_scale)
    if arguments.torch_compile:
        model.compile()
    return wrapped, optimizer, state, None if checkpoint is None else load_carried(checkpoint, accelerator.device)


def _add_gradients(
    wrapped, parts: list[Batch], states: list, precision: torch.autocast, accelerator: Accelerator
) -> tuple[torch.Tensor, float, float]:
    """The gradient of the mean loss over the targets of a whole batch, of which `parts` are this process's share.

    `states` are what the model gave for the parts of the step before, and become what it gives for these. Returns the
    sum of this process's losses, and the targets and items of all processes.
    """
    # Count the targets of the whole batch first, then weight each part's mean by its share of them.
    counts = [(part.pop("num_targets"), part.pop("num_items")) for part in parts]
    num_targets, num_items = sum_over_processes(accelerator, *map(sum, zip(*counts, strict=True)))
    loss_sum = torch.zeros((), device=accelerator.device)
    for i, (part, (part_targets, _)) in enumerate(zip(parts, counts, strict=True)):
        with contextlib.nullcontext() if i == len(parts) - 1 else accelerator.no_sync(wrapped):
            if part.pop("continues", False):
                part["state"] = states[i]
            with precision:
                output = wrapped(**send_to_device(part, accelerator.device))
            loss, states[i] = output.loss, output.get("state")
            # Processes average their gradients, hence their number.
            accelerator.backward(loss * (part_targets * accelerator.num_processes / num_targets))
        loss_sum += loss.detach().float() * part_targets
    return loss_sum, num_targets, num_items


@torch.no_grad()
def _evaluate(evaluate, model, accelerator: Accelerator) -> dict[str, float]:
    model.eval()
    figures = evaluate(accelerator)
    model.train()
    return figures


@dataclass
class _Window:
    """What has been seen since the last line of the log."""

    loss: torch.Tensor | float = 0.0
    targets: float = 0.0
    items: float = 0.0
    start: float = field(default_factory=time.monotonic)

    def add(self, loss: torch.Tensor, num_targets: float, num_items: float) -> None:
        self.loss, self.targets, self.items = self.loss + loss, self.targets + num_targets, self.items + num_items

    def loss_sum(self, accelerator: Accelerator) -> float:
        return sum_over_processes(accelerator, float(self.loss))[0]

    def mean_loss(self, accelerator: Accelerator) -> float:
        return self.loss_sum(accelerator) / self.targets


def _find_checkpoint(
    arguments: TrainingArguments, output_dir: Path, start: TrainingState, accelerator: Accelerator
) -> tuple[TrainingState, Path | None]:
    """Where to go on, and the checkpoint with the weights; at the `start`, and none, where nothing was saved.

    Raises `InputError` where no checkpoint is whole, the data would come in another order, other parameters learn or
    another optimiser trains them.
    """
    if not arguments.resume:
        return start, None
    checkpoint = on_main_process(accelerator, lambda: newest_checkpoint(output_dir, print))
    if checkpoint is None:
        accelerator.print(f"nothing to resume in {output_dir}, starting")
        return start, None
    state = load_state(checkpoint)
    for name, value in start.order.items():
        if (found := state.order.get(name, 1)) != value:
            raise InputError(
                f"--resume: {checkpoint} was made with {name} {found:,}, not {value:,}, by which the data "
                f"would come in another order; {REPEAT_OR_START_ANEW}"
            )
    if state.trained != start.trained:
        raise InputError(f"--resume: in {checkpoint} other parameters learn; {REPEAT_OR_START_ANEW}")
    if state.optim != start.optim:
        raise InputError(f"--resume: {checkpoint} was made with --optim {state.optim}; {REPEAT_OR_START_ANEW}")
    accelerator.print(f"resuming from {checkpoint}")
    return state, checkpoint


@contextlib.contextmanager
def _tracking(accelerator: Accelerator, arguments: TrainingArguments, output_dir: Path) -> Iterator[None]:
    """What is logged goes to the tracker that `arguments` name, if they do, under the name of the folder."""
    if arguments.report_to is not None:
        os.environ.setdefault("WANDB_MODE", "offline")
        flags = {
            name: value
            for name, value in dataclasses.asdict(arguments).items()
            if isinstance(value, int | float | str)
        }
        name = output_dir.absolute().name
        project = "tensorboard" if arguments.report_to == "tensorboard" else "toolkit"  # there it is a folder
        kwargs = {"trackio": {"name": name}, "wandb": {"name": name, "dir": str(output_dir)}}
        accelerator.init_trackers(project, config=flags, init_kwargs=kwargs)
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # accelerate's end_training would end the processes' group as well
            tracker.finish()


def _make_optimizer(model, arguments: TrainingArguments, options, accelerator: Accelerator) -> torch.optim.Optimizer:
    if arguments.optim != "muon":
        groups = _parameter_groups(model, arguments.weight_decay, options)
        if arguments.optim == "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise InputError("--optim muon: needs whole matrices, which FSDP2 and DeepSpeed cut up; use adamw")
    groups = _parameter_groups(model, arguments.weight_decay, options, matrices_of_layers(model))
    in_float32 = accelerator.device.type == "cpu" and not arguments.bf16
    return MuonWithAdamW(groups, lr=0.0, dtype=torch.float32 if in_float32 else torch.bfloat16)


def _parameter_groups(
    model,
    weight_decay: float,
    options: Callable[[str], ParameterOptions],
    of_muon: Collection[torch.nn.Parameter] = (),
) -> list[dict]:
    """Parameters of one pace and optimiser; weight decay for matrices, none for biases, norms and other vectors."""
    groups: dict[tuple, list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (*options(name), weight_decay if parameter.ndim >= 2 else 0.0, parameter in of_muon)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "start": start, "weight_decay": decay, "muon": muon}
        for (scale, start, decay, muon), parameters in groups.items()
    ]


def _evaluation_is_due(
    arguments: TrainingArguments, state: TrainingState, progress: float, num_evaluations: int
) -> bool:
    if progress >= 1:
        return True
    if arguments.eval_steps is not None:
        return state.step % arguments.eval_steps == 0
    return progress * num_evaluations >= state.num_evaluations + 1


def _save_is_due(arguments: TrainingArguments, state: TrainingState, seconds: float, signal_number: int) -> bool:
    """`seconds` since the last checkpoint."""
    if signal_number:
        return True
    if arguments.save_steps is None:
        return seconds >= SAVE_SECONDS
    return state.step % arguments.save_steps == 0


def _truncate(path: Path, size: int) -> None:
    with open(path, "ab") as file:
        file.truncate(min(size, file.tell()))
