"""Several processes as one run, through Accelerate: start, agreement, gathering, sharding."""

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
    """Set up the devices and processes that the launcher started, and a tracker that writes to `output_dir`.

    Raises:
        InputError: The launcher asked for more processes than it started.
    """
    is_cpu = not torch.accelerator.is_available()  # without `cpu=True` Accelerate ignores torchrun on CPUs
    accelerator = Accelerator(cpu=is_cpu, log_with=tracker, project_dir=output_dir)
    if is_cpu and accelerator.num_processes > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        # Accelerate offers FSDP on GPUs only; torch shards parameters over gloo as well.
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
    # On CPUs `accelerate launch` sets an address to meet at, but starts one process and sets no WORLD_SIZE.
    is_alone = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ
    if is_alone or int(os.environ.get("WORLD_SIZE", "1")) > accelerator.num_processes:
        raise InputError(
            f"the launcher asked for more processes than the {accelerator.num_processes} that it started; "
            "on CPUs start N of them with: torchrun --nproc_per_node N -m toolkit …"
        )
    return accelerator


def gather_objects(accelerator: Accelerator, objects: list) -> list:
    """Concatenate the lists of all processes."""
    return objects if accelerator.num_processes == 1 else gather_object(objects)


def gather_tensors(accelerator: Accelerator, tensors: list[torch.Tensor | None]) -> torch.Tensor | None:
    """Concatenate the tensors of all processes, which have the same shape; None if there are none."""
    present = [tensor for tensor in tensors if tensor is not None]
    return accelerator.gather(torch.cat(present)) if present else None


def sum_over_processes(accelerator: Accelerator, *numbers: float) -> list[float]:
    """Sum each number over all processes."""
    if accelerator.num_processes == 1:
        return list(numbers)
    tensor = torch.tensor(numbers, dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(tensor, reduction="sum").tolist()


def agree(accelerator: Accelerator, seconds: float, signal_number: int) -> tuple[float, int]:
    """Give all processes the clock of the main process, and a signal that any of them received."""
    if accelerator.num_processes == 1:
        return seconds, signal_number
    mine = torch.tensor([seconds, signal_number], dtype=torch.float64, device=accelerator.device)
    every = accelerator.gather(mine.unsqueeze(0))  # (processes, 2)
    return float(every[0, 0]), int(every[:, 1].max())


def on_main_process(accelerator: Accelerator, function: Callable[[], Any]) -> Any:
    """Call `function` on the main process; all processes get its result, or the `InputError` that it raised."""
    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            answer = [function()]
        except InputError as error:
            answer = [error]
    (result,) = broadcast_object_list(answer)
    if isinstance(result, InputError):
        raise result
    return result


def knows_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16. A CPU that does not is hundreds of times slower than in float32."""
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: otherwise most of it is returned to the system and zeroed again in each step."""
    with suppress(OSError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def as_float(norm: Any) -> float | None:
    """The gradient norm as a number, on all processes if it is sharded; None with DeepSpeed, which clips by itself."""
    if norm is None:
        return None
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def configure_deepspeed(accelerator: Accelerator, arguments: TrainingArguments) -> None:
    """Set batch size and clipping in DeepSpeed's configuration. Raises `InputError` for flags that it does not allow.

    The configuration sets precision, and no checkpoints are saved.
    """
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


def shard_model(model, plugin: FullyShardedDataParallelPlugin) -> None:
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
