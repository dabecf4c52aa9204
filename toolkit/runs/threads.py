"""How long idle threads of OpenMP and OpenBLAS spin before they sleep: shorter than by default, for shared machines.

A thread that has finished its part of an operation waits for the others, or for the next operation. It first spins,
which is fast but uses the processor, and sleeps if it has to wait longer. Beside other work on the machine this can
make training several times slower: the scheduler counts spinning as processor time of the run, while the thread that
has work to do waits for a processor. A thread that sleeps leaves its processor to that thread or to others.

The libraries read these variables once, when they are loaded:

- `GOMP_SPINCOUNT`: GNU's OpenMP, in PyTorch for Linux and in scikit-learn. It spins 300,000 times by default, some
  milliseconds. https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
- `KMP_BLOCKTIME`: LLVM's and Intel's OpenMP, in PyTorch for macOS and Windows. They spin for 200 ms by default.
  https://openmp.llvm.org/design/Runtimes.html#kmp-blocktime
- `OPENBLAS_THREAD_TIMEOUT`: OpenBLAS in NumPy and SciPy. It spins for 2²⁸ ticks by default, a tenth of a second.
  https://github.com/OpenMathLib/OpenBLAS/blob/develop/driver/others/blas_server.c
"""

import os
import sys

WAIT_POLICY = "OMP_WAIT_POLICY"  # of all OpenMP runtimes
OPENMP_LIMITS = {
    "GOMP_SPINCOUNT": "3000",  # iterations
    "KMP_BLOCKTIME": "1",  # ms, as in `torch.backends.xeon.run_cpu` and `accelerate launch --cpu`
}
SPIN_LIMITS = {**OPENMP_LIMITS, "OPENBLAS_THREAD_TIMEOUT": "14"}  # binary logarithm of clock ticks


def limit_spinning() -> None:
    """Set the variables of `SPIN_LIMITS` in the environment of this process and of the processes that it starts.

    `import toolkit` calls it. Variables that are set already are kept, and OMP_WAIT_POLICY replaces those of OpenMP.
    Nothing is set once torch has been imported, since the libraries would not read it.
    """
    if "torch" not in sys.modules:
        for name, value in SPIN_LIMITS.items():
            if name not in OPENMP_LIMITS or WAIT_POLICY not in os.environ:
                os.environ.setdefault(name, value)


def describe_spinning() -> str:
    """The variables that are set, as `NAME=VALUE, …`."""
    names = [name for name in (WAIT_POLICY, *SPIN_LIMITS) if name in os.environ]
    return ", ".join(f"{name}={os.environ[name]}" for name in names) or "which spin as by default"
