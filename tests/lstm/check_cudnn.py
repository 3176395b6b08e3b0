"""Errors of a backend against the float64 reference, in values and gradients, one record a case.

python tests/lstm/check_cudnn.py --out docs/records/cudnn_check.jsonl
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from lstm_optax.lstm import LSTM, LSTMParams, LSTMState
from lstm_optax.records import Record, append_record, markdown_row, provenance

VALUES = ("outputs", "h", "c")
GRADIENTS = ("x", "kernel_ih", "kernel_hh", "bias", "h0", "c0")


class Case(NamedTuple):
    """Sizes and features of one comparison."""

    time: int
    batch: int = 8
    features: int = 32
    hidden: int = 64
    num_layers: int = 1
    bidirectional: bool = False
    ragged: bool = False


CASES = (
    *(Case(time, ragged=ragged) for time in (1, 20, 100, 500) for ragged in (False, True)),
    *(Case(time, bidirectional=True, ragged=r) for time in (20, 500) for r in (False, True)),
    Case(100, num_layers=2, bidirectional=True, ragged=True),
    Case(20, batch=1, features=1, hidden=1),
    Case(20, batch=3, features=5, hidden=7, ragged=True),
    Case(35, batch=20, features=650, hidden=650),
)


@dataclass(frozen=True)
class CheckConfig:
    """Compare a backend with the float64 reference, which runs on the CPU.

    Attributes:
      backend: the backend to compare.
      precision: precision of its products, as in `jax.default_matmul_precision`.
      out: file of JSON lines to append the records to.
    """

    backend: str = "cudnn"
    precision: tuple[str, ...] = ("float32", "tensorfloat32")
    out: Path | None = None


def measure(case: Case, backend: str, precision: str = "float32", seed: int = 0) -> Record:
    """Return the largest error of each result and gradient, relative to its largest entry.

    The loss is a random weighted sum of the outputs and the last carry.

    Raises:
      ValueError: the backend cannot run here.
    """
    with jax.default_matmul_precision(precision):
        found = _results(case, backend, seed, np.float32)
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        exact = _results(case, "reference", seed, np.float64)
    errors = {name: _error(found[name], exact[name]) for name in (*VALUES, *GRADIENTS)}
    return dict(case=case._asdict(), backend=backend, precision=precision, errors=errors)


def as_row(record: Record) -> str:
    """Return a record as a row of a Markdown table: the case and its errors."""
    case, errors = record["case"], record["errors"]
    sizes = ", ".join(str(case[name]) for name in ("time", "batch", "features", "hidden"))
    layers = f"{case['num_layers']}{', both ways' if case['bidirectional'] else ''}"
    lengths = "ragged" if case["ragged"] else "full"
    shown = [f"{errors[name]:.1e}" for name in (*VALUES, *GRADIENTS)]
    return markdown_row((sizes, layers, lengths, record["precision"], *shown))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases and print a table; return the exit status, 2 if the backend cannot run."""
    config = tyro.cli(CheckConfig, args=argv)
    header = ("T, B, I, H", "layers", "lengths", "products", *VALUES, *(f"∂{g}" for g in GRADIENTS))
    print(markdown_row(header), markdown_row(["---"] * len(header)), sep="\n")
    for precision, case in itertools.product(config.precision, CASES):
        try:
            record = measure(case, config.backend, precision)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(as_row(record), flush=True)
        if config.out is not None:
            append_record(config.out, record | dict(made_by=_provenance(config)))
    return 0


def _provenance(config: CheckConfig) -> Record:
    """Return the provenance of a record, with the version of the device's platform."""
    command = f"python tests/lstm/check_cudnn.py --backend {config.backend}"
    platform_version = " ".join(jax.devices()[0].client.platform_version.split())
    return provenance(command) | dict(platform_version=platform_version)


def _error(found: Sequence, exact: Sequence) -> float:
    worst = np.max([np.max(np.abs(f - e)) for f, e in zip(found, exact, strict=True)])
    return float(worst / np.max([np.max(np.abs(e)) for e in exact]))


def _results(case: Case, backend: str, seed: int, dtype: Any) -> dict[str, list[np.ndarray]]:
    """Return values and gradients by name, with a list over layers and directions."""
    params, x, carry, weights, lengths = _draw(case, seed)
    params, x, carry, weights = jax.tree.map(dtype, (params, x, carry, weights))

    @jax.jit
    def run(params, x, carry):
        def loss(params, x, carry):
            both = case.bidirectional
            lstm = LSTM.from_params(params, bidirectional=both, backend=backend)
            results = lstm(x, carry, seq_lengths=lengths)
            products = jax.tree.map(lambda w, r: jnp.sum(w * r), weights, results)
            return sum(jax.tree.leaves(products)), results

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, x, carry)

    (by_params, by_x, by_carry), (outputs, last) = jax.device_get(run(params, x, carry))
    return dict(
        outputs=[outputs],
        h=[state.h for state in last],
        c=[state.c for state in last],
        x=[by_x],
        **{name: [getattr(p, name) for p in by_params] for name in LSTMParams._fields},
        h0=[state.h for state in by_carry],
        c0=[state.c for state in by_carry],
    )


def _draw(case: Case, seed: int) -> tuple[Any, ...]:
    """Return parameters, inputs, carry and weights of the loss in float32, and lengths or None."""
    rng = np.random.default_rng(seed)
    directions = 2 if case.bidirectional else 1
    width, count = directions * case.hidden, directions * case.num_layers

    def normal(*shape: int, scale: float = 1.0) -> Any:
        return np.float32(scale * rng.normal(size=shape))

    def states():
        shape = (case.batch, case.hidden)
        return tuple(LSTMState(normal(*shape), normal(*shape)) for _ in range(count))

    params = []
    for i in range(count):
        features = case.features if i < directions else width
        kernel_ih = normal(features, 4 * case.hidden, scale=features**-0.5)
        kernel_hh = normal(case.hidden, 4 * case.hidden, scale=case.hidden**-0.5)
        params.append(LSTMParams(kernel_ih, kernel_hh, normal(4 * case.hidden)))
    x = normal(case.time, case.batch, case.features)
    weights = (normal(case.time, case.batch, width), states())
    lengths = np.linspace(0, case.time, case.batch).round().astype(np.int32)  # from 0 to time
    return tuple(params), x, states(), weights, lengths if case.ragged else None


if __name__ == "__main__":
    raise SystemExit(main())
