"""Measure how many products and additions the CPU can do, for the shares in docs/speed.md.

    python tests/lstm/measure_peak.py

A loop in C++ multiplies and adds in registers only, on every core; the best of several runs counts.
`measure_native.py` shows how much of that a large product of XLA reaches.
"""

import ctypes
import os
import subprocess
import tempfile
import time
from pathlib import Path

from lstm_optax.lstm.native.build import find_compiler

ROUNDS, REPEATS = 20_000_000, 7
SUMS, LANES = 24, 16  # as many sums as the kernels of the library keep in registers
SOURCE = f"""
typedef float Vec __attribute__((vector_size({4 * LANES})));
extern "C" float run(long rounds, float factor, float term) {{
  Vec sums[{SUMS}], f = factor - Vec{{}}, t = term - Vec{{}};
  for (Vec& sum : sums) sum = t;
  for (long i = 0; i < rounds; ++i) {{
    #pragma GCC unroll {SUMS}
    for (Vec& sum : sums) sum = sum * f + t;
  }}
  Vec total{{}};
  for (Vec& sum : sums) total += sum;
  return total[0];
}}
"""


def compiled(folder: Path) -> ctypes.CDLL:
    """Return the compiled loop."""
    (folder / "peak.cc").write_text(SOURCE)
    flags = ["-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC"]
    command = [*find_compiler().command, *flags, "peak.cc", "-o", "peak.so"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "peak.so"))


def loop_rate(cores: int) -> float:
    """Return the operations per second of the loop, in one process for each core."""
    with tempfile.TemporaryDirectory() as name:
        run = compiled(Path(name)).run
    run.argtypes, run.restype = [ctypes.c_long, ctypes.c_float, ctypes.c_float], ctypes.c_float
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        children = []
        for _ in range(cores):
            if (child := os.fork()) == 0:
                run(ROUNDS, 0.5, 1.0)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        times.append(time.perf_counter() - begun)
    return cores * 2 * SUMS * LANES * ROUNDS / min(times)


if __name__ == "__main__":
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, loop in registers: {loop_rate(cores) / 1e9:.0f} GFLOP/s")
