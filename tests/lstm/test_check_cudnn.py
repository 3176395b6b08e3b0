"""The check of a backend against the float64 reference; with a GPU, also of cuDNN."""

import json

import check_cudnn as cudnn_check
import cudnn_stand_in
import jax.numpy as jnp
import numpy as np
import pytest
from check_cudnn import CASES, Case, as_row, main, measure

from lstm_optax.lstm.backends import cudnn
from lstm_optax.records import append_record

SMALL = Case(6, 3, 2, 4, bidirectional=True, ragged=True)


def worst(record):
    return max(record["errors"].values())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["fused", "cudnn"])
def test_float32_is_close_to_reference(backend, monkeypatch):
    if backend == "cudnn":
        cudnn_stand_in.install(monkeypatch)
    record = measure(SMALL, backend)
    assert worst(record) < 2e-6
    assert as_row(record).startswith("| 6, 3, 2, 4 | 1, both ways | ragged | float32 |")


@pytest.mark.slow
def test_detects_wrong_gate_order(monkeypatch):
    packed = cudnn._pack_weights
    cudnn_stand_in.install(monkeypatch)
    swapped = lambda p: p._replace(bias=jnp.roll(p.bias, 4))  # noqa: E731
    monkeypatch.setattr(cudnn, "_pack_weights", lambda params: packed(swapped(params)))
    assert min(measure(SMALL, "cudnn")["errors"].values()) > 1e-2


def test_each_name_has_its_own_array():
    """An error in one array is not reported for another."""
    results = cudnn_check._results(SMALL, "fused", 0, np.float32)
    arrays = [results[name] for name in (*cudnn_check.VALUES, *cudnn_check.GRADIENTS)]
    for i, one in enumerate(arrays):
        assert not any(np.array_equal(one[0], other[0]) for other in arrays[i + 1 :])


@pytest.mark.slow
def test_nan_is_no_small_error(tmp_path):
    errors = dict(measure(SMALL, "fused")["errors"])
    errors["h0"] = cudnn_check._error([np.zeros(2), np.array([np.nan, 1.0])], [np.ones(2)] * 2)
    record = dict(case=SMALL._asdict(), precision="float32", errors=errors)
    assert as_row(record).split(" | ")[-2] == "nan"
    append_record(tmp_path / "records.jsonl", record)
    assert json.loads((tmp_path / "records.jsonl").read_text())["errors"]["h0"] is None


def test_writes_records_and_a_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cudnn_check, "CASES", (SMALL,))
    path = tmp_path / "new" / "records.jsonl"
    assert main(["--backend", "fused", "--precision", "float32", "--out", str(path)]) == 0
    (record,) = map(json.loads, path.read_text().splitlines())
    assert record["case"] == SMALL._asdict() and worst(record) < 2e-6
    assert {"command", "versions", "device", "platform_version"} <= set(record["made_by"])
    assert capsys.readouterr().out.count("\n") == 3


def test_reports_missing_gpu(monkeypatch, capsys):
    monkeypatch.setattr(cudnn, "missing", lambda: "there is no GPU")
    assert main([]) == 2
    assert "backend='cudnn' cannot run this call: there is no GPU" in capsys.readouterr().err


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cudnn_is_close_to_reference(case):
    """Values and all gradients, for T up to 500, ragged lengths and both directions."""
    if reason := cudnn.missing():
        pytest.skip(reason)
    assert worst(measure(case, "cudnn")) < 1e-4
