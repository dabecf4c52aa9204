"""Several processes as one, through Accelerate: which there are, what they agree on, how they share a model out."""

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, broadcast_object_list, gather_object

from toolkit.errors import InputError
from toolkit.training.arguments import TrainingArguments

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def make_accelerator(tracker: str | None = None, output_dir: Path | None = None) -> Accelerator:
    """Devices and processes as the launcher says; `tracker` is one of accelerate's.

    Raises `InputError` where a launcher asked for more processes than were started.
    """
    is_cpu = not torch.accelerator.is_available()  # unless told, accelerate takes torchrun on CPUs for one process
    accelerator = Accelerator(cpu=is_cpu, log_with=tracker, project_dir=output_dir)
    if is_cpu and accelerator.num_processes > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        # accelerate thinks of GPUs alone here; torch shares parameters out over gloo as well.
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
    # On CPUs `accelerate launch` says where its processes should meet, then starts one and not how many it should be.
    is_alone = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ
    if is_alone or int(os.environ.get("WORLD_SIZE", "1")) > accelerator.num_processes:
        raise InputError(
            f"the launcher asked for more processes than the {accelerator.num_processes} that it started; "
            "on CPUs start N of them with: torchrun --nproc_per_node N -m toolkit …"
        )
    return accelerator


def gather_objects(accelerator: Accelerator, mine: list) -> list:
    """The lists of all processes, joined."""
    if accelerator.num_processes == 1:
        return mine
    return gather_object(mine)


def join_over_processes(accelerator: Accelerator, mine: list[torch.Tensor | None]) -> torch.Tensor | None:
    """The tensors of all processes, which are of one shape, joined in order; None where there is none."""
    tensors = [tensor for tensor in mine if tensor is not None]
    return accelerator.gather(torch.cat(tensors)) if tensors else None


def sum_over_processes(accelerator: Accelerator, *numbers: float) -> list[float]:
    if accelerator.num_processes == 1:
        return list(numbers)
    tensor = torch.tensor(numbers, dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(tensor, reduction="sum").tolist()


def agree(accelerator: Accelerator, seconds: float, signal_number: int) -> tuple[float, int]:
    """The main process's clock, and any process's signal."""
    if accelerator.num_processes == 1:
        return seconds, signal_number
    mine = torch.tensor([seconds, signal_number], dtype=torch.float64, device=accelerator.device)
    every = accelerator.gather(mine.unsqueeze(0))  # (processes, 2)
    return float(every[0, 0]), int(every[:, 1].max())


def knows_bfloat16(device: torch.device) -> bool:
    """Whether it can multiply in bfloat16: a CPU that cannot takes hundreds of times as long as in float32."""
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def keep_freed_memory() -> None:
    """Let the C library keep what tensors give back, where it is glibc: otherwise it asks the system for most of it
    again in every step, which clears each page first."""
    with suppress(OSError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def on_main_process(accelerator: Accelerator, function: Callable[[], Any]) -> Any:
    """What `function` gives on the main process, or the `InputError` that it raises there, on all of them."""
    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            answer = [function()]
        except InputError as error:
            answer = [error]
    (found,) = broadcast_object_list(answer)
    if isinstance(found, InputError):
        raise found
    return found


def norm_before_clipping(norm: Any) -> float | None:
    """None with DeepSpeed, which clips by itself. Where parameters are shared out all processes must call this."""
    if norm is None:
        return None
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def adapt_to_deepspeed(accelerator: Accelerator, arguments: TrainingArguments) -> None:
    """Raises `InputError` for flags whose work DeepSpeed takes over, or that need its state, which is not saved."""
    for name in ("bf16", "fp16", "torch_compile", "resume", "save_steps"):
        if getattr(arguments, name):
            raise InputError(f"--{name}: not with DeepSpeed; set precision in its configuration, or resume with FSDP2")
    if arguments.gradient_accumulation_steps > 1:
        raise InputError(f"--gradient_accumulation_steps {arguments.gradient_accumulation_steps}: not with DeepSpeed")
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    if config.get("zero_optimization", {}).get("stage") == 3:
        raise InputError(
            "DeepSpeed's ZeRO stage 3 shares weights out, which are not saved then; take stage 2 or FSDP2"
        )
    config["train_micro_batch_size_per_gpu"] = max(1, arguments.batch_size // accelerator.num_processes)
    config["gradient_clipping"] = arguments.max_grad_norm


def share_out(model, plugin: FullyShardedDataParallelPlugin) -> None:
    """Give each process a part of every parameter (FSDP2). A layer is gathered at once, and so is all that is in none.

    accelerate would do it at `prepare`, but not with the output bias of a BERT, which two modules hold in common.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers.modeling_layers import GradientCheckpointingLayer

    policies = {
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
        "offload_policy": plugin.cpu_offload,
    }
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            fully_shard(layer, reshard_after_forward=plugin.reshard_after_forward, **policies)
    fully_shard(model, **policies)
    plugin.auto_wrap_policy = None  # nothing is left for accelerate to do
