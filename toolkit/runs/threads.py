"""How long idle threads of OpenMP spin before they sleep: shorter than by default, for machines that others use too.

A thread that has finished its part of a parallel region waits for the others. It first spins, which is fast but uses
the processor, and sleeps if they take longer. On a machine with other work this can make training several times
slower: the scheduler counts spinning as the processor time of the run, while the thread that the others wait for
waits for a processor. A thread that sleeps leaves its processor to that thread or to others.

PyTorch brings its own OpenMP runtime, which reads its environment variables once, when it is loaded:

- GNU's (Linux) spins 300,000 times by default, some milliseconds:
  https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
- LLVM's (macOS) and Intel's (Windows) spin for 200 ms by default:
  https://openmp.llvm.org/design/Runtimes.html#kmp-blocktime
"""

import os
import sys

WAIT_POLICY = "OMP_WAIT_POLICY"  # of every runtime
SPIN_LIMITS = {
    "GOMP_SPINCOUNT": "1000",  # iterations
    "KMP_BLOCKTIME": "1",  # ms, as in `torch.backends.xeon.run_cpu` and `accelerate launch --cpu`
}


def limit_spinning() -> None:
    """Set the variables of `SPIN_LIMITS` in the environment of this process and of the processes that it starts.

    `import toolkit` calls it. Variables that are set already are kept, and OMP_WAIT_POLICY replaces them all. Nothing
    is set once torch has been imported, since its runtime would not read it.
    """
    if WAIT_POLICY not in os.environ and "torch" not in sys.modules:
        for name, value in SPIN_LIMITS.items():
            os.environ.setdefault(name, value)


def describe_spinning() -> str:
    """The variables that are set, as `NAME=VALUE, …`."""
    names = [name for name in (WAIT_POLICY, *SPIN_LIMITS) if name in os.environ]
    return ", ".join(f"{name}={os.environ[name]}" for name in names) or "which spin as by default"
