"""What happens before the first step: device and precision, resuming, sharding, the optimizer."""

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from toolkit.errors import InputError
from toolkit.training.arguments import TrainingArguments
from toolkit.training.checkpoints import TrainingState, load_optimizer, load_state, load_weights, newest_checkpoint
from toolkit.training.distributed import knows_bfloat16, on_main_process
from toolkit.training.optimizers import OptionsByName, make_optimizer

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def configure_model(model, arguments: TrainingArguments, accelerator: Accelerator) -> None:
    """Move the model to its device and set it up for the flags of precision and memory.

    Raises `InputError` if the model or DeepSpeed does not support a flag.
    """
    if accelerator.device.type == "cpu":
        _keep_freed_memory()
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
        _configure_deepspeed(accelerator, arguments)


def find_checkpoint(folder: Path, new: TrainingState, accelerator: Accelerator) -> tuple[TrainingState, Path | None]:
    """The state and the folder of the newest complete checkpoint; `new`, the state of a new run, if there is none."""
    checkpoint = on_main_process(accelerator, lambda: newest_checkpoint(folder))
    if checkpoint is None:
        accelerator.print(f"nothing to resume in {folder}, starting")
        return new, None
    state = load_state(checkpoint, new)
    accelerator.print(f"resuming from {checkpoint}")
    return state, checkpoint


def prepare(
    model, arguments: TrainingArguments, options: OptionsByName, accelerator: Accelerator, checkpoint: Path | None
) -> tuple[Any, Any]:
    """Wrap the model for several processes and make its optimizer, both as in the checkpoint if there is one."""
    if checkpoint is not None:
        load_weights(checkpoint, model)
    is_sharded = accelerator.is_fsdp2  # on CPUs Accelerate resets it in `prepare`
    if is_sharded:
        _shard_model(model, accelerator.state.fsdp_plugin)
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


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory: otherwise most of it is returned to the system and zeroed again in each step."""
    with suppress(OSError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _configure_deepspeed(accelerator: Accelerator, arguments: TrainingArguments) -> None:
    """Set batch size and clipping in DeepSpeed's configuration. Raises `InputError` for flags that do not fit it."""
    for name in ("bf16", "fp16", "torch_compile", "resume", "save_steps"):
        if getattr(arguments, name):
            raise InputError(f"--{name}: not with DeepSpeed; set precision in its configuration, or resume with FSDP2")
    if arguments.gradient_accumulation_steps > 1:
        raise InputError(f"--gradient_accumulation_steps {arguments.gradient_accumulation_steps}: not with DeepSpeed")
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    if config.get("zero_optimization", {}).get("stage") == 3:
        raise InputError("DeepSpeed's ZeRO stage 3 shards weights, which cannot be saved; use stage 2 or FSDP2")
    config["train_micro_batch_size_per_gpu"] = max(1, arguments.batch_size // accelerator.num_processes)
    config["gradient_clipping"] = arguments.max_grad_norm


def _shard_model(model, plugin: FullyShardedDataParallelPlugin) -> None:
    """Shard the parameters over the processes (FSDP2): each transformer layer is a unit, everything else is one more.

    `Accelerator.prepare` would do this, but fails on the output bias of a BERT, which two modules share.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers.modeling_layers import GradientCheckpointingLayer

    precision = plugin.mixed_precision_policy or MixedPrecisionPolicy()
    policies = {"mp_policy": precision, "offload_policy": plugin.cpu_offload}
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            fully_shard(layer, reshard_after_forward=plugin.reshard_after_forward, **policies)
    fully_shard(model, **policies)
    plugin.auto_wrap_policy = None  # nothing is left for Accelerate to shard
