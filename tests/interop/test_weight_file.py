"""Weights in safetensors and NPZ files, and with PyTorch's names."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from build_models import language_model, sequence_model
from flax import nnx

import lstm_optax as lo

ARRAYS = {
    "lstm.weight_ih_l0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "file": np.arange(3, dtype=np.int64),
    "allow_pickle": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.float32(2.5),
    "none": np.zeros((0, 4), np.float16),
    "traced by JAX": jnp.ones(2),
    "complex": np.ones(2, np.complex64),
    "flags": np.array([True, False]),
}


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path, need):
    if request.param == ".safetensors":
        need("safetensors")
    return tmp_path / f"weights{request.param}"


def test_arrays_round_trip(path):
    lo.interop.save_weights(path, ARRAYS)
    read = lo.interop.load_weights(path)
    assert sorted(read) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert type(read[name]) is np.ndarray and read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_similar_names_round_trip(path):
    weights = {"a": np.zeros(2), "a.npy": np.ones(2), "a.npy.npy": np.full(2, 2.0)}
    lo.interop.save_weights(path, weights)
    assert {n: x[0] for n, x in lo.interop.load_weights(path).items()} == {
        n: x[0] for n, x in weights.items()
    }


@pytest.mark.parametrize("name", ["", 1, None, "a\0b", "\udcff", "k" * 70_000, "__metadata__"])
def test_save_rejects_invalid_name(path, name):
    with pytest.raises(ValueError, match="a name is .*, which files do not support"):
        lo.interop.save_weights(path, {name: np.ones(1)})
    assert not path.exists()


def test_save_rejects_unsupported_dtype(path):
    with pytest.raises(ValueError, match=f"'a' is of .*, which {path.suffix} files do not support"):
        lo.interop.save_weights(path, {"a": np.ones(2, np.clongdouble)})
    if path.suffix == ".safetensors":
        with pytest.raises(ValueError, match="'a' is of complex128, which .safetensors files"):
            lo.interop.save_weights(path, {"a": np.ones(2, complex)})
    with pytest.raises(ValueError, match="weights is a list; expected arrays by name"):
        lo.interop.save_weights(path, [np.ones(1)])  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError):
        lo.interop.save_weights(path.parent / "missing" / path.name, ARRAYS)


def test_bfloat16_round_trips_or_is_rejected(path):
    weights = {"w": jnp.asarray([1.0, 3.140625], jnp.bfloat16)}
    if path.suffix == ".npz":
        with pytest.raises(ValueError, match="'w' is of bfloat16, which .npz files do not support"):
            lo.interop.save_weights(path, weights)
    else:
        lo.interop.save_weights(path, weights)
        (read,) = lo.interop.load_weights(path).values()
        assert read.dtype == jnp.bfloat16
        np.testing.assert_array_equal(read, weights["w"])


def test_damaged_file_raises_value_error(path):
    """Cut files, a changed header or number, and a missing file."""
    lo.interop.save_weights(path, {"w": np.arange(50.0)})
    whole = path.read_bytes()
    at = 8 if path.suffix == ".safetensors" else whole.index(np.float64(7).tobytes()) + 7
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    cuts = [whole[:n] for n in range(0, len(whole), 37)]
    for content in [*cuts, b"{}", b"PK\x03\x04" * 9, flipped]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights.\w+ is refused: it is damaged"):
            lo.interop.load_weights(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        lo.interop.load_weights(path)


def test_load_rejects_npz_with_objects(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([1, "a"], object))
    with pytest.raises(ValueError, match="a.npz is refused: .*arrays of numbers"):
        lo.interop.load_weights(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.array(["a"]))
    with pytest.raises(ValueError, match="b.npz is refused: .*'x' is of <U1"):
        lo.interop.load_weights(tmp_path / "b.npz")


@pytest.mark.parametrize(
    "name, weights, message",
    [
        ("a.pt", {}, "a.pt ends in '.pt'; expected one of .safetensors, .npz"),
        ("a", {}, "ends in ''"),
        ("a.npz", {3: np.ones(1)}, "a name is 3, which files do not support"),
        ("a.npz", {"x": np.array(["a"])}, "'x' is of <U1"),
        ("a.npz", {"x": object()}, "'x' is of object"),
    ],
)
def test_save_rejects_invalid_argument(tmp_path, name, weights, message):
    with pytest.raises(ValueError, match=message):
        lo.interop.save_weights(tmp_path / name, weights)
    assert not list(tmp_path.iterdir())


def model_of(**options):
    sizes = dict(in_features=4, hidden_features=4, num_layers=2)
    return language_model(7, **sizes, **options, rngs=nnx.Rngs(0))


class Encoder(nnx.Module):
    """Layers in a list and in a dictionary, and both directions."""

    def __init__(self, rngs):
        self.encoder = lo.LSTM(3, 4, num_layers=2, bidirectional=True, rngs=rngs)
        self.heads = nnx.List(
            [nnx.Linear(8, 2, rngs=rngs), nnx.Linear(8, 1, use_bias=False, rngs=rngs)]
        )


MODELS = {
    "language": lambda: model_of(dropout=0.5),
    "tied": lambda: model_of(tied=True),
    "sequence": lambda: sequence_model(2, in_features=3, hidden_features=4, rngs=nnx.Rngs(0)),
    "lists": lambda: Encoder(nnx.Rngs(0)),
    "layer": lambda: lo.LSTM(3, 4, rngs=nnx.Rngs(0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_module_weights_round_trip(name):
    model = MODELS[name]()
    weights = lo.interop.module_to_torch(model)
    other = nnx.clone(model)
    nnx.update(other, jax.tree.map(lambda x: x + 1, nnx.state(other, nnx.Param)))
    again = lo.interop.module_from_torch(other, weights)
    chex.assert_trees_all_equal(nnx.state(again, nnx.Param), nnx.state(model, nnx.Param))
    assert type(again) is type(model)
    expected = jax.tree.map(lambda x: x + 1, nnx.state(model, nnx.Param))
    chex.assert_trees_all_equal(nnx.state(other, nnx.Param), expected)  # unchanged


def test_module_names_match_pytorch():
    assert sorted(lo.interop.module_to_torch(model_of())) == sorted(
        ["embedding.weight", "output.weight", "output.bias"]
        + [
            f"lstm.{kind}_{of}_l{layer}"
            for kind in ("weight", "bias")
            for of in ("ih", "hh")
            for layer in (0, 1)
        ]
    )
    lists = lo.interop.module_to_torch(Encoder(nnx.Rngs(0)))
    assert {"encoder.weight_ih_l1_reverse", "heads.0.bias", "heads.1.weight"} <= set(lists)
    assert "heads.1.bias" not in lists and lists["heads.0.weight"].shape == (2, 8)


WEIGHTS = lo.interop.module_to_torch(model_of())


@pytest.mark.parametrize(
    "weights, message",
    [
        (WEIGHTS | {"extra.weight": jnp.ones(1)}, "the model has no 'extra.weight'"),
        ({k: v for k, v in WEIGHTS.items() if k != "output.bias"}, "output.bias is missing"),
        ({k: v for k, v in WEIGHTS.items() if "_l1" not in k}, "lstm. has 1 layers .* expected 2"),
        (WEIGHTS | {"output.weight": jnp.ones((4, 7))}, r"output.weight has shape \(4, 7\); exp"),
        (WEIGHTS | {"lstm.weight_ih_l0": jnp.ones((16, 5))}, r"\(5, 16\); expected 2, of \(4, 16"),
        (WEIGHTS | {"lstm.weight_hr_l0": jnp.ones((2, 4))}, "is a projection"),
    ],
)
def test_rejects_weights_of_other_model(weights, message):
    with pytest.raises(ValueError, match=message):
        lo.interop.module_from_torch(model_of(), weights)


def test_rejects_module_without_counterpart():
    with pytest.raises(ValueError, match=r"the parameter 'norm/(bias|scale)' belongs to no LSTM"):
        lo.interop.module_to_torch(nnx.Dict(norm=nnx.LayerNorm(3, rngs=nnx.Rngs(0))))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_pytorch(need, tmp_path, suffix, tied):
    """Through a file that PyTorch's tools read, and through one that they write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = need("torch")
    need("safetensors")
    from safetensors.torch import load_file, save_file

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(7, 4)
            self.lstm = torch.nn.LSTM(4, 4, num_layers=2)
            if not tied:
                self.output = torch.nn.Linear(4, 7)

        def forward(self, tokens):
            outputs, (h, c) = self.lstm(self.embedding(tokens))
            head = torch.nn.functional.linear if tied else None
            return head(outputs, self.embedding.weight) if tied else self.output(outputs), h, c

    ours, theirs, path = model_of(tied=tied), Model(), tmp_path / f"weights{suffix}"
    lo.interop.save_weights(path, lo.interop.module_to_torch(ours))
    if suffix == ".npz":
        with np.load(path) as file:
            theirs.load_state_dict({name: torch.tensor(file[name]) for name in file.files})
    else:
        theirs.load_state_dict(load_file(path))
    tokens = np.random.default_rng(0).integers(0, 7, size=(6, 3))

    def compare(model):
        logits, carry = model(jnp.asarray(tokens), deterministic=True)
        expected, h, c = (x.detach().numpy() for x in theirs(torch.tensor(tokens)))
        np.testing.assert_allclose(logits, expected, atol=1e-6)
        np.testing.assert_allclose(np.stack([s.h for s in carry]), h, atol=1e-6)
        np.testing.assert_allclose(np.stack([s.c for s in carry]), c, atol=1e-6)

    compare(ours)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) / 3)
    save_file(theirs.state_dict(), tmp_path / "back.safetensors")
    compare(
        lo.interop.module_from_torch(ours, lo.interop.load_weights(tmp_path / "back.safetensors"))
    )
