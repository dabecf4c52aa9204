"""Several processes as one run, through Accelerate: start, agreement, gathering."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, broadcast_object_list

from toolkit.errors import InputError


def make_accelerator(tracker: str | None = None, output_dir: Path | None = None) -> Accelerator:
    """Set up the devices and processes that the launcher started, and a tracker that writes to `output_dir`.

    Raises `InputError` if the launcher asked for more processes than it started.
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
