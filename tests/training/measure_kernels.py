"""Trace a train step and an update on a GPU: how many kernels run, and how long they keep it busy.

python tests/training/measure_kernels.py
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.profiler import ProfileData

from lstm_optax.bench.optimizer_programs import optimizer_program
from lstm_optax.bench.programs import Program
from lstm_optax.bench.train_programs import train_program
from lstm_optax.bench.workloads import WORKLOADS

CALLS = 3


def main() -> None:
    """Print for each program the time of a step, the kernels, and the time that they take."""
    for name, program in _programs():
        for _ in range(3):
            program.call()
        began = time.perf_counter()
        for _ in range(CALLS):
            program.call()
        seconds = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                for _ in range(CALLS):
                    program.call()
            (trace,) = Path(folder).rglob("*.xplane.pb")
            kernels = kernel_seconds(trace)
        steps = CALLS * program.steps
        print(
            f"{name}: {1e3 * seconds / steps:.3f} ms a step, {len(kernels) / steps:.0f} kernels "
            f"that take {1e3 * sum(kernels) / steps:.3f} ms",
            flush=True,
        )


def kernel_seconds(trace: Path) -> list[float]:
    """Return the seconds of each kernel of a trace, those of copies from the host excepted."""
    return [
        event.duration_ns / 1e9
        for plane in ProfileData.from_file(str(trace)).planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        if line.name.startswith("Stream") and "Compute" in line.name
        for event in line.events
    ]


def _programs() -> Iterator[tuple[str, Program]]:
    row, update = WORKLOADS["character"], WORKLOADS["nadam-24m"]
    for measure, steps in (("step", 1), ("steps", 8)):
        for name, options in (("lstm_optax", {}), ("flax-nnx", {"unroll": 4})):
            program = train_program(name, row, measure, steps, 0, **options)
            yield f"character, {steps} per dispatch, {name}", program
    for name in ("lstm_optax", "optax"):
        yield f"nadam-24m, {name}", optimizer_program(name, update, "step", 1, 0)


if __name__ == "__main__":
    if jax.default_backend() != "gpu":
        raise SystemExit("JAX sees no GPU here, and a trace of a CPU has no kernels")
    main()
