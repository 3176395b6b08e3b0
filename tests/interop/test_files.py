"""Files of PyTorch are read as data; code in them is not run."""

import os
import sys
import types
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from lstm_optax.interop import read_torch
from lstm_optax.interop.files import as_numpy


@pytest.fixture
def torch():
    """PyTorch; skip without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch")


class Trap:
    """An object whose unpickling creates a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.slow
def test_saved_objects_are_read(torch, tmp_path):
    model = torch.nn.LSTM(2, 3, num_layers=2)
    half = torch.tensor([1.0, 3.140625, -1e30]).to(torch.bfloat16)
    others = {"epoch": 3, "name": "a", "rates": (0.1, [None, True]), "half": half}
    torch.save({"model": model.state_dict(), "others": others}, tmp_path / "saved.pt")
    read = read_torch(tmp_path / "saved.pt")
    assert list(read["model"]) == list(model.state_dict()) and type(read["model"]) is dict
    for name, value in model.state_dict().items():
        assert type(read["model"][name]) is np.ndarray
        np.testing.assert_array_equal(read["model"][name], value.numpy())
    bits = read["others"].pop("half")
    assert bits.dtype == jnp.bfloat16
    np.testing.assert_array_equal(bits.view(np.int16), half.view(torch.int16).numpy())
    del others["half"]
    assert read["others"] == others


@pytest.mark.slow
def test_rejects_damaged_file(torch, tmp_path):
    torch.save({"w": torch.arange(50.0)}, tmp_path / "whole.pt")
    whole, path = (tmp_path / "whole.pt").read_bytes(), tmp_path / "damaged.pt"
    contents = [whole[:n] for n in range(0, len(whole), len(whole) // 25)]
    contents += [b"hello", b"epoch,loss\n1,2\n", b"\x80\x02.", b"PK\x03\x04" * 9]
    at = whole.index(np.float32([3, 4, 5]).tobytes())
    contents.append(
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    )  # one flipped bit of a weight
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged.pt is refused: it is damaged"):
            read_torch(path)
    with pytest.raises(FileNotFoundError):
        read_torch(tmp_path / "missing.pt")


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
def test_rejects_file_with_code(torch, tmp_path, legacy):
    path, marker = tmp_path / "trap.pt", tmp_path / "marker"
    options = {"_use_new_zipfile_serialization": not legacy}
    torch.save({"model": {"w": torch.ones(2)}, "trap": Trap(marker)}, path, **options)
    with pytest.raises(ValueError, match=r"trap.pt is refused: .*save only the `state_dict\(\)`"):
        read_torch(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # shows that the trap works
    assert marker.exists()


@pytest.mark.slow
def test_rejects_whole_model_and_cut_file(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    torch.save({"w": torch.ones(100)}, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:500])
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("model.pt", "cut.pt", "empty.pt"):
        with pytest.raises(ValueError, match=f"{name} is refused"):
            read_torch(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_torch(tmp_path / "none.pt")


@pytest.mark.slow
@pytest.mark.parametrize("make", ["to_sparse", "type"])
def test_rejects_tensor_unknown_to_numpy(torch, tmp_path, make):
    odd = torch.ones(2).to_sparse() if make == "to_sparse" else torch.ones(2).to(torch.float8_e5m2)
    torch.save({"a": {"b": [odd]}}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd.pt\['a'\]\['b'\]\[0\] is a tensor of torch.float"):
        read_torch(tmp_path / "odd.pt")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_as_numpy_copies_tensor(torch, dtype):
    tensor = torch.ones(64, dtype=getattr(torch, dtype), requires_grad=True)
    array = as_numpy(tensor)
    with torch.no_grad():
        tensor.zero_()
    assert (array == 1).all() and array.dtype == jnp.dtype(dtype)


def test_missing_pytorch_error_names_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'lstm_optax\[parity\]'"):
        read_torch(tmp_path / "saved.pt")


@pytest.mark.parametrize("version", ["2.5.1+cu121", "1.13.0"])
def test_rejects_pytorch_with_unsafe_loader(version, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__=version))
    with pytest.raises(ImportError, match="may run code from a file"):
        read_torch(tmp_path / "saved.pt")
