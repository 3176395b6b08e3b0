"""`find_gates` on modules of other libraries: the found gates reproduce their outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from layouts_table import LAYOUTS, H, N, as_lstm_params, run

from lstm_optax import find_gates

pytestmark = pytest.mark.slow

X = np.random.default_rng(7).normal(size=(4, 2, N)).astype(np.float32)


def check_recorded(name, params, **arguments):
    """Check names, shapes and gate map against the table, and return the cells."""
    layout = LAYOUTS[name]
    assert jax.tree.structure(params) == jax.tree.structure(layout.params())
    found = find_gates(params, **(layout.arguments | arguments))
    assert found == find_gates(layout.params(), **layout.arguments)
    return list(as_lstm_params(params, found).values())


def perturbed(tree):
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape) / 2, x.dtype), tree)


def test_haiku(need, key):
    haiku = need("haiku")

    def unroll(x):
        core = haiku.LSTM(H)
        return haiku.dynamic_unroll(core, x, core.initial_state(x.shape[1]))[0]

    network = haiku.without_apply_rng(haiku.transform(unroll))
    params = perturbed(network.init(key, X))
    (ours,) = check_recorded("Haiku", params)
    np.testing.assert_allclose(run(ours, X), network.apply(params, X), atol=1e-6)


def test_haiku_in_a_network(need, key):
    """Two LSTMs followed by a Linear are two LSTMs."""
    haiku = need("haiku")

    def unroll(x):
        core = haiku.DeepRNN([haiku.LSTM(H), haiku.LSTM(4), haiku.Linear(8)])
        return haiku.dynamic_unroll(core, x, core.initial_state(x.shape[1]))[0]

    params = haiku.transform(unroll).init(key, X)
    assert {block.lstm for block in find_gates(params).blocks} == {"lstm", "lstm_1"}
    gru = haiku.transform(lambda x: haiku.GRU(H)(x, jnp.zeros((2, H)))[0]).init(key, X[0])
    with pytest.raises(ValueError, match="there is no LSTM"):
        find_gates(gru)


def test_equinox(need, key):
    equinox = need("equinox")
    cell = perturbed(equinox.nn.LSTMCell(N, H, key=key))
    layout = LAYOUTS["Equinox"]
    shapes = {name: jnp.shape(getattr(cell, name)) for name in layout.shapes}
    assert shapes == layout.shapes
    (ours,) = as_lstm_params(cell, find_gates(cell)).values()

    def step(carry, x):
        h, c = jax.vmap(cell)(x, carry)
        return (h, c), h

    theirs = jax.lax.scan(step, (jnp.zeros((2, H)), jnp.zeros((2, H))), X)[1]
    np.testing.assert_allclose(run(ours, X), theirs, atol=1e-6)
    with pytest.raises(ValueError, match="there is no LSTM"):
        find_gates(equinox.nn.GRUCell(N, H, key=key))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_keras(need, bidirectional):
    keras = need("keras")
    layer = keras.layers.LSTM(H, return_sequences=True)
    if bidirectional:
        layer = keras.layers.Bidirectional(layer)
    x = X.swapaxes(0, 1)
    layer.build(x.shape)
    values = perturbed([variable.value for variable in layer.trainable_variables])
    for variable, value in zip(layer.trainable_variables, values, strict=True):
        variable.assign(value)
    names = [variable.path for variable in layer.trainable_variables]
    cells = as_lstm_params(values, find_gates(values, names=names))
    assert [way for *_, way in cells] == ["forward", "backward"][: 1 + bidirectional]
    ours = [run(p, X, reverse=way == "backward") for (*_, way), p in cells.items()]
    theirs = np.asarray(layer(x)).swapaxes(0, 1)
    np.testing.assert_allclose(jnp.concatenate(ours, -1), theirs, atol=1e-5)
    recorded = {name.split("/")[-1]: value.shape for name, value in zip(names, values, strict=True)}
    assert recorded == LAYOUTS["Keras"].shapes["sequential"]["lstm"]["lstm_cell"]


def test_keras_trees(need):
    keras = need("keras")
    layers = keras.layers
    inputs, head = keras.Input((4, N)), [layers.GRU(4, return_sequences=True), layers.Dense(2)]
    model = keras.Sequential([inputs, layers.LSTM(H, return_sequences=True), *head])
    model.compile("sgd", "mse")
    tree = model.get_state_tree()["trainable_variables"]
    (lstm,) = {block.lstm for block in find_gates(tree).blocks}
    assert lstm.endswith("lstm_cell")
    cells = layers.RNN([layers.LSTMCell(H), layers.LSTMCell(4)])
    cells.build((None, 4, N))
    named = {variable.path: variable.value for variable in cells.trainable_variables}
    assert len({block.lstm for block in find_gates(named).blocks}) == 2


def test_torch(need):
    torch = need("torch")
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(N, H, bidirectional=True)
    params = {f"lstm.{name}": jnp.asarray(w.numpy()) for name, w in lstm.state_dict().items()}
    ours = check_recorded("PyTorch, LSTM", params)
    theirs = lstm(torch.from_numpy(X))[0].detach().numpy()
    outputs = [run(p, X, reverse=i == 1) for i, p in enumerate(ours)]
    np.testing.assert_allclose(jnp.concatenate(outputs, -1), theirs, atol=1e-6)
    cell = {n: jnp.asarray(w.numpy()) for n, w in torch.nn.LSTMCell(N, H).state_dict().items()}
    check_recorded("PyTorch, LSTMCell", cell)
    for other in (torch.nn.GRU(N, H), torch.nn.RNN(N, H), torch.nn.GRUCell(N, H)):
        with pytest.raises(ValueError, match="there is no LSTM"):
            find_gates({n: jnp.asarray(w.numpy()) for n, w in other.state_dict().items()})


def test_flax_names_match_the_table(key):
    rngs = nnx.Rngs(0)
    for name in ("LSTMCell", "OptimizedLSTMCell"):
        state = nnx.to_pure_dict(nnx.state(getattr(nnx, name)(N, H, rngs=rngs), nnx.Param))
        check_recorded(f"Flax NNX, {name}", state)
    check_recorded("Flax Linen", linen.RNN(linen.LSTMCell(H)).init(key, X))
