"""Apply a function to many items in several processes, with results in order."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from toolkit.errors import RunFailed

Item = TypeVar("Item")
Result = TypeVar("Result")
OnDone = Callable[[int, int], None]  # called with the number of items that are done and the number of all
WAITING_A_PROCESS = 2  # results of each process that may wait to be used


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_proc: int | None = None,
    on_done: OnDone | None = None,
) -> Iterator[Result]:
    """Apply a function to items in processes, by default one per core; results come in the order of the items.

    Unlike with `Pool.imap`, few results wait in memory. For a single item or process none is started.

    Raises:
        RunFailed: A process was killed.
    """
    num_proc = min(num_proc or available_cores(), len(items))
    results = map(function, items) if num_proc < 2 else _map_in_processes(function, items, num_proc)
    for done, result in enumerate(results, start=1):
        yield result
        if on_done is not None:
            on_done(done, len(items))


def _map_in_processes(function: Callable[[Item], Result], items: Sequence[Item], num_proc: int) -> Iterator[Result]:
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        num_proc, multiprocessing.get_context(method), initializer=_start, initargs=(os.getpid(), function)
    )
    ahead: deque[Future] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(_call, item))
            if len(ahead) > WAITING_A_PROCESS * num_proc:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BaseException as error:  # also where the results are no longer wanted
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            what = "one of the processes was killed; is there enough memory? try fewer --num_proc"
            raise RunFailed(what) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_function: Callable[[Any], Any]  # sent to each process once, not with every item


def _start(parent: int, function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for each core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _call(item: Any) -> Any:
    return _function(item)
