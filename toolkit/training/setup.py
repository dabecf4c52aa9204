"""What happens before the first step: device and precision, resuming, sharding, the optimizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from toolkit.errors import InputError
from toolkit.training.arguments import TrainingArguments
from toolkit.training.checkpoints import (
    REPEAT_OR_START_ANEW,
    STATE_FILE,
    TrainingState,
    load_optimizer,
    load_weights,
    newest_checkpoint,
)
from toolkit.training.distributed import (
    configure_deepspeed,
    keep_freed_memory,
    knows_bfloat16,
    on_main_process,
    shard_model,
)
from toolkit.training.optimizers import ParameterOptions, make_optimizer


def configure_model(model, arguments: TrainingArguments, accelerator: Accelerator) -> None:
    """Move the model to its device and set it up for the flags of precision and memory.

    Raises:
        InputError: The model or DeepSpeed does not support a flag.
    """
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    model.to(accelerator.device)
    if arguments.bf16 and accelerator.device.type == "cpu":
        if not knows_bfloat16(accelerator.device):
            accelerator.print("--bf16: this processor does not support bfloat16, training is far slower with it")
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation("eager")  # sdpa is slower here, mostly in the backward pass
    if arguments.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise InputError(f"--gradient_checkpointing: {type(model).__name__} does not support it")
        model.gradient_checkpointing_enable()
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        configure_deepspeed(accelerator, arguments)


def find_checkpoint(
    output_dir: Path, new: TrainingState, accelerator: Accelerator
) -> tuple[TrainingState, Path | None]:
    """The state and the folder of the newest complete checkpoint; `new`, the state of a new run, if there is none.

    Raises:
        InputError: All checkpoints are damaged, or the run had other data, parameters or another optimizer.
    """
    checkpoint = on_main_process(accelerator, lambda: newest_checkpoint(output_dir))
    if checkpoint is None:
        accelerator.print(f"nothing to resume in {output_dir}, starting")
        return new, None
    state = TrainingState(**json.loads((checkpoint / STATE_FILE).read_text()))
    for name, value in new.data_order.items():
        if (found := state.data_order.get(name, 1)) != value:
            raise InputError(
                f"--resume: {checkpoint} was made with {name} {found:,}, not {value:,}, which changes the order of "
                f"the data; {REPEAT_OR_START_ANEW}"
            )
    if state.trained_parameters != new.trained_parameters:
        raise InputError(f"--resume: {checkpoint} was made with other trainable parameters; {REPEAT_OR_START_ANEW}")
    if state.optim != new.optim:
        raise InputError(f"--resume: {checkpoint} was made with --optim {state.optim}; {REPEAT_OR_START_ANEW}")
    accelerator.print(f"resuming from {checkpoint}")
    return state, checkpoint


def prepare(
    model,
    arguments: TrainingArguments,
    options: Callable[[str], ParameterOptions],
    accelerator: Accelerator,
    checkpoint: Path | None,
) -> tuple[Any, Any]:
    """Wrap the model for several processes and make its optimizer, both as in the checkpoint if there is one."""
    if checkpoint is not None:
        load_weights(checkpoint, model)
    is_sharded = accelerator.is_fsdp2  # on CPUs Accelerate resets it in `prepare`
    if is_sharded:
        shard_model(model, accelerator.state.fsdp_plugin)
    optimizer = make_optimizer(model, arguments, options, accelerator)
    if arguments.fp16:
        accelerator.scaler = torch.amp.GradScaler(accelerator.device.type)
    groups = [list(group["params"]) for group in optimizer.param_groups]
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    if is_sharded:  # Accelerate matches parameters by address, and all empty shards have the same
        for group, parameters in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = parameters
    if checkpoint is not None:
        load_optimizer(checkpoint, model, optimizer)
    if arguments.torch_compile:
        model.compile()
    return wrapped, optimizer
