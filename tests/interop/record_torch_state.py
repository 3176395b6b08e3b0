"""Record trainings in PyTorch, so that tests without PyTorch can continue them.

Run from this folder, where PyTorch is installed: `python record_torch_state.py`. It writes
recorded_torch_state.npz: for each case the weights and the optimizer's state dict in the middle,
the weights at the end, the batches, and the versions that made them.
"""

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from live import torch_in
from torch_training import (
    AFTER,
    BEFORE,
    RECORDED_MOVES,
    Move,
    batches,
    torch_model,
    torch_optimizer,
    torch_steps,
    torch_weights,
)

RECORDED = Path(__file__).parent / "recorded_torch_state.npz"


def record_move(move: Move) -> dict[str, np.ndarray]:
    """Return the arrays of one case, with all parameters in one row each."""
    with torch_in(np.float64):
        model = torch_model()
        optimizer = torch_optimizer(move, model.parameters())
        torch_steps(model, optimizer, 0, BEFORE)
        saved = optimizer.state_dict()
        arrays = {"param_groups": np.array(json.dumps(saved["param_groups"]))}
        arrays["middle"] = _row(torch_weights(model).values())
        for key in saved["state"][0]:
            arrays[f"state/{key}"] = _row(e[key].numpy() for _, e in sorted(saved["state"].items()))
        torch_steps(model, optimizer, BEFORE, AFTER)
        arrays["end"] = _row(torch_weights(model).values())
    return {f"{move}/{key}": value for key, value in arrays.items()}


def load_move(move: Move) -> tuple[dict, dict, dict]:
    """Return weights and state dict from the middle, and the weights at the end."""
    with np.load(RECORDED) as file:
        names, shapes = [str(n) for n in file["names"]], json.loads(str(file["shapes"]))
        record = {k.split("/", 1)[1]: v for k, v in file.items() if k.startswith(f"{move}/")}
    state = {index: {} for index in range(len(names))}
    for key, row in record.items():
        if key.startswith("state/"):
            for index, value in enumerate(_parts(row, shapes)):
                state[index][key.removeprefix("state/")] = value
    saved = {"state": state, "param_groups": json.loads(str(record["param_groups"]))}
    middle, end = (_parts(record[key], shapes) for key in ("middle", "end"))
    return dict(zip(names, middle, strict=True)), saved, dict(zip(names, end, strict=True))


def _row(values: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in values])


def _parts(row: np.ndarray, shapes: list[list[int]]) -> list[np.ndarray]:
    """Return an array or a number for each parameter, the inverse of `_row`."""
    if len(row) == len(shapes):
        return list(row)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [p.reshape(s) for p, s in zip(np.split(row, ends), shapes, strict=True)]


def record() -> None:
    """Run every case and write its record."""
    arrays = dict(zip(("x", "y"), batches(), strict=True))
    arrays["versions"] = np.array([f"{n} {version(n)}" for n in ("numpy", "torch")])
    weights = torch_weights(torch_model())
    arrays["names"] = np.array(list(weights))
    arrays["shapes"] = np.array(json.dumps([value.shape for value in weights.values()]))
    for move in RECORDED_MOVES:
        arrays |= record_move(move)
    np.savez_compressed(RECORDED, **arrays)
    print(f"{len(arrays)} arrays, {RECORDED.stat().st_size:,} bytes in {RECORDED}")


if __name__ == "__main__":
    record()
