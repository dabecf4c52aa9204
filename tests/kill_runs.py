"""Start one toolkit command again and again, each time ended by SIGKILL at a point of its work, then let it finish.

    python kill_runs.py '[["after optimizer step", 3], ["random", 0.7]]' pretrain bert … --resume

Each run is a process of its own, forked from this one, which has loaded the libraries once. A point is a name of
`POINTS` and how many times it is passed before the kill, or "random" and seconds. Prints how many runs were killed.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time

import torch

import toolkit.pretraining
import toolkit.training.checkpoints
import toolkit.training.loader
import toolkit.training.log
from toolkit.cli.dispatch import main


def _before(owner, name: str, matches=lambda *arguments: True):
    return owner, name, matches, True


def _after(owner, name: str, matches=lambda *arguments: True):
    return owner, name, matches, False


def _is_checkpoint(source, target, *rest) -> bool:
    return os.path.basename(target).startswith("checkpoint-")


POINTS = {
    "before optimizer step": _before(torch.optim.AdamW, "step"),
    "after optimizer step": _after(torch.optim.AdamW, "step"),
    "before checkpoint rename": _before(os, "replace", _is_checkpoint),
    "after checkpoint rename": _after(os, "replace", _is_checkpoint),
    "before log write": _before(toolkit.training.log.TrainingLog, "mean_loss"),
    "after log write": _after(toolkit.training.log.TrainingLog, "write"),
    "before best weights": _before(os, "replace", lambda source, target: str(target).endswith("model.safetensors")),
    "before the record": _before(os, "replace", lambda source, target: str(target).endswith("results.json")),
    "while a checkpoint is written": _before(toolkit.training.checkpoints, "save_file"),
    "while the best run is copied": _before(shutil, "copy2"),
    "while a worker starts": _before(toolkit.training.loader, "start_worker"),
}


def end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    time.sleep(1)  # for a worker; a process does not outlive its own


def kill_at(point: str, count: int) -> None:
    """From now on this process ends when `point` is passed for the `count`-th time, be it in one of its workers."""
    process = os.getpid()
    owner, name, matches, is_before = POINTS[point]
    original = getattr(owner, name)
    num_passed = 0

    def passed(*arguments, **keywords):
        nonlocal num_passed
        num_passed += bool(matches(*arguments))
        is_time = num_passed == count and matches(*arguments)
        if is_time and is_before:
            end(process)
        result = original(*arguments, **keywords)
        if is_time and not is_before:
            end(process)
        return result

    setattr(owner, name, passed)


def run(arguments: list[str], point: str | None, when: float) -> int:
    """The exit code of a run; below zero if it was killed."""
    child = os.fork()
    if child == 0:
        if point == "random":
            seconds = random.Random(str(when)).uniform(0, when)
            threading.Thread(target=lambda: (time.sleep(seconds), os.kill(os.getpid(), signal.SIGKILL))).start()
        elif point is not None:
            kill_at(point, int(when))
        os._exit(main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    plan, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    codes = [run(arguments, point, when) for point, when in plan]
    print("kills:", sum(code == -signal.SIGKILL for code in codes), flush=True)
    sys.exit(run(arguments, None, 0))
