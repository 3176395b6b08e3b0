"""Conversions compared with the libraries themselves, in both directions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lstm_optax import LSTM, LSTMState, lstm_sequence
from lstm_optax.interop import (
    lstm_from_keras,
    lstm_params_from_equinox,
    lstm_params_from_haiku,
    lstm_params_from_keras,
    lstm_params_from_torch,
    lstm_params_to_equinox,
    lstm_params_to_haiku,
    lstm_params_to_keras,
    lstm_to_keras,
    lstm_to_torch,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("x64"),
    # Keras' arrays raise this warning.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

T, B, F, H = 5, 3, 2, 4
LENGTHS = np.array([5, 2, 4])
VALID = (np.arange(T)[:, None] < LENGTHS)[:, :, None]
CLOSE = dict(rtol=1e-11, atol=1e-13)


@pytest.fixture
def keras(need):
    keras = need("keras")
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # reading it fixes the dtype, whatever floatx is later
    yield keras
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape) / 2


def drawn(arrays):
    return [draw(*np.shape(a), seed=i) for i, a in enumerate(arrays)]


X, H0, C0, Y = draw(T, B, F), draw(B, H, seed=1), draw(B, H, seed=2), draw(T, B, H, seed=3)


def loss_of(outputs, ends):
    return jnp.sum(jnp.sin(outputs)) + sum(jnp.sum(jnp.cos(end)) for end in ends)


def lstm_of(keras, bidirectional=False, **options):
    """Return a Keras layer with JAX's tanh, since that of Keras' JAX backend rounds to float32."""
    layer = keras.layers.LSTM(H, return_sequences=True, **options)
    if not bidirectional:
        layer.cell.activation = jnp.tanh
        return layer
    both = keras.layers.Bidirectional(layer)
    for layer in (both.forward_layer, both.backward_layer):
        layer.cell.activation = jnp.tanh
    return both


def seeds(layer):
    """Return the arrays of a Keras layer other than its weights."""
    return [variable.value for variable in layer.non_trainable_variables]


def same_with_gradients(theirs, ours, *args):
    """Compare outputs and gradients of all arguments; both functions return (loss, outputs)."""
    results = [
        jax.jit(jax.value_and_grad(f, argnums=tuple(range(len(args))), has_aux=True))(*args)
        for f in (theirs, ours)
    ]
    chex.assert_trees_all_close(*results, **CLOSE)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(results[0][1]))


@pytest.mark.parametrize("masked", [False, True])
def test_keras_layer_equals_ours(keras, masked):
    """With gradients of weights, inputs and states; masked outputs are zero in the padding."""
    layer = lstm_of(keras, return_state=True, zero_output_for_mask=True)
    layer.build((B, T, F))
    weights = drawn(layer.get_weights())
    mask = jnp.asarray(VALID[:, :, 0].T) if masked else None

    def theirs(weights, x, h, c):
        x = jnp.swapaxes(x, 0, 1)
        results, _ = layer.stateless_call(weights, seeds(layer), x, initial_state=[h, c], mask=mask)
        outputs, h, c = results
        return loss_of(outputs, (h, c)), (jnp.swapaxes(outputs, 0, 1), h, c)

    def ours(weights, x, h, c):
        (params,) = lstm_params_from_keras(weights)
        lengths = LENGTHS if masked else None
        outputs, state = lstm_sequence(params, x, LSTMState(h=h, c=c), seq_lengths=lengths)
        return loss_of(outputs, state), (outputs, *state)

    same_with_gradients(theirs, ours, weights, X, H0, C0)


def test_left_mask_of_keras_is_reset(keras):
    """A reset at the first valid step of each row; gradients of the padding are 0."""
    layer = lstm_of(keras, return_state=True)
    layer.build((B, T, F))
    weights = drawn(layer.get_weights())
    starts = T - LENGTHS
    valid = np.arange(T)[:, None] >= starts

    def theirs(weights, x):
        x, mask = jnp.swapaxes(x, 0, 1), jnp.asarray(valid.T)
        (outputs, h, c), _ = layer.stateless_call(weights, seeds(layer), x, mask=mask)
        outputs = jnp.where(valid[:, :, None], jnp.swapaxes(outputs, 0, 1), 0)
        return loss_of(outputs, (h, c)), (outputs, h, c)

    def ours(weights, x):
        (params,) = lstm_params_from_keras(weights)
        outputs, state = lstm_sequence(params, x, resets=np.arange(T)[:, None] == starts)
        outputs = jnp.where(valid[:, :, None], outputs, 0)
        return loss_of(outputs, state), (outputs, *state)

    same_with_gradients(theirs, ours, weights, X)


@pytest.mark.parametrize("bias", [True, False])
def test_keras_bidirectional_stack_equals_ours(keras, bias):
    """Two layers, with a mask."""
    layers = [
        lstm_of(keras, bidirectional=True, use_bias=bias, zero_output_for_mask=True)
        for _ in range(2)
    ]
    for layer, features in zip(layers, (F, 2 * H), strict=True):
        layer.build((B, T, features))
    weights = drawn([w for layer in layers for w in layer.get_weights()])
    half = len(weights) // 2

    def theirs(weights, x):
        x = jnp.swapaxes(x, 0, 1)
        for layer, own in zip(layers, (weights[:half], weights[half:]), strict=True):
            x, _ = layer.stateless_call(own, seeds(layer), x, mask=jnp.asarray(VALID[:, :, 0].T))
        return loss_of(x, ()), x

    def ours(weights, x):
        lstm = lstm_from_keras(weights, bidirectional=True, time_major=False)
        outputs, _ = lstm(jnp.swapaxes(x, 0, 1), seq_lengths=LENGTHS)
        return loss_of(outputs, ()), outputs

    same_with_gradients(theirs, ours, weights, X)


def trained(loss, params, steps=3):
    """Return the parameters after steps of SGD; its options are exact in float32, as in Keras."""
    tx = optax.sgd(0.125, momentum=0.875)

    def step(held, _):
        params, state = held
        updates, state = tx.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, steps)[0][0])(params)


def squared(lstm):
    return jnp.mean(jnp.square(lstm(X)[0] - Y))


def test_training_step_equals_keras(keras):
    lstm = LSTM(F, H, num_layers=2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    model = keras.Sequential([keras.Input((T, F)), *(lstm_of(keras) for _ in range(2))])

    def mse(y, outputs):  # Keras' own loss takes the mean in float32
        return jnp.mean(jnp.square(y - outputs), axis=-1)

    model.compile(keras.optimizers.SGD(0.125, momentum=0.875), mse)
    model.set_weights(lstm_to_keras(lstm))  # copies, since Keras' training frees its arrays
    for _ in range(3):
        model.train_on_batch(X.swapaxes(0, 1), Y.swapaxes(0, 1))
    params = trained(lambda params: squared(LSTM.from_params(params)), lstm.params())
    chex.assert_trees_all_close(lstm_params_to_keras(params), model.get_weights(), **CLOSE)


@pytest.mark.parametrize("layers, bidirectional", [(1, False), (2, True)])
def test_training_step_equals_torch(need, layers, bidirectional):
    """The second bias of PyTorch is kept at zero, since it is redundant."""
    torch = need("torch")
    sizes = dict(num_layers=layers, bidirectional=bidirectional)
    lstm = LSTM(F, H, **sizes, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    theirs = torch.nn.LSTM(F, H, **sizes).double()
    tensors = {name: torch.tensor(np.asarray(w)) for name, w in lstm_to_torch(lstm).items()}
    theirs.load_state_dict(tensors)
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_("bias_hh" not in name)
    x, y = torch.tensor(X), torch.tensor(np.concatenate([Y] * (1 + bidirectional), axis=-1))
    outputs, _ = lstm(X)
    chex.assert_trees_all_close(outputs, theirs(x)[0].detach().numpy(), **CLOSE)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.125, momentum=0.875)
    for _ in range(3):
        optimizer.zero_grad()
        torch.mean(torch.square(theirs(x)[0] - y)).backward()
        optimizer.step()

    def loss(params):
        outputs, _ = LSTM.from_params(params, bidirectional=bidirectional)(X)
        return jnp.mean(jnp.square(outputs - y.numpy()))

    params = trained(loss, lstm.params())
    chex.assert_trees_all_close(lstm_params_from_torch(theirs.state_dict()), params, **CLOSE)


def test_haiku_equals_ours(need):
    """Haiku's 1 at the forget gate is part of our bias; the gradients are the same."""
    haiku = need("haiku")

    def unroll(x, h, c):
        return haiku.dynamic_unroll(haiku.LSTM(H), x, haiku.LSTMState(h, c))

    network = haiku.without_apply_rng(haiku.transform(unroll))
    shapes = jax.eval_shape(network.init, jax.random.key(0), X, H0, C0)["lstm/linear"]
    linear = dict(zip(shapes, drawn(shapes.values()), strict=True))

    def theirs(linear, x, h, c):
        outputs, state = network.apply({"lstm/linear": linear}, x, h, c)
        return loss_of(outputs, state), (outputs, *state)

    def ours(linear, x, h, c):
        outputs, state = lstm_sequence(lstm_params_from_haiku(linear), x, LSTMState(h, c))
        return loss_of(outputs, state), (outputs, *state)

    same_with_gradients(theirs, ours, linear, X, H0, C0)
    loss = lambda linear, which: which(linear, X, H0, C0)[0]  # noqa: E731
    here = trained(lambda p: loss(lstm_params_to_haiku(p), theirs), lstm_params_from_haiku(linear))
    there = trained(lambda p: loss(p, theirs), linear)
    chex.assert_trees_all_close(lstm_params_to_haiku(here), there, **CLOSE)
    gru = haiku.transform(lambda x, h: haiku.GRU(H)(x, h)).init(jax.random.key(0), X[0], H0)
    with pytest.raises(ValueError, match=r"an LSTM of Haiku|is missing"):
        lstm_params_from_haiku(gru["gru"])


@pytest.mark.parametrize("bias", [True, False])
def test_equinox_equals_ours(need, bias):
    equinox = need("equinox")
    cell = equinox.nn.LSTMCell(F, H, use_bias=bias, dtype=jnp.float64, key=jax.random.key(0))

    def theirs(cell, x, h, c):
        def step(carry, x):
            carry = jax.vmap(cell)(x, carry)
            return carry, carry[0]

        state, outputs = jax.lax.scan(step, (h, c), x)
        return loss_of(outputs, state), (outputs, *state)

    def ours(cell, x, h, c):
        outputs, state = lstm_sequence(lstm_params_from_equinox(cell), x, LSTMState(h, c))
        return loss_of(outputs, state), (outputs, *state)

    same_with_gradients(theirs, ours, cell, X, H0, C0)
    if bias:
        params = lstm_params_from_equinox(cell)
        back = lstm_params_to_equinox(params, cell)
        assert type(back) is equinox.nn.LSTMCell
        chex.assert_trees_all_equal(back, cell)
        here = trained(lambda p: theirs(lstm_params_to_equinox(p, cell), X, H0, C0)[0], params)
        there = trained(lambda p: theirs(p, X, H0, C0)[0], cell)
        chex.assert_trees_all_close(lstm_params_to_equinox(here, cell), there, **CLOSE)
    with pytest.raises(ValueError, match=r"weight_ih has shape \(12, 2\); expected"):
        lstm_params_from_equinox(equinox.nn.GRUCell(F, H, key=jax.random.key(0)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda layers: layers.LSTM(H, activation="relu"), "activation of the LSTM .* is 'relu'"),
        (
            lambda layers: layers.LSTM(H, recurrent_activation="hard_sigmoid"),
            "recurrent_activation of .* is 'hard_sigmoid'; this LSTM has 'sigmoid'",
        ),
        (lambda layers: layers.LSTM(H, go_backwards=True), "go_backwards of .* is True"),
        (lambda layers: layers.LSTM(H, dropout=0.5), "dropout of .* is 0.5"),
        (
            lambda layers: layers.Bidirectional(layers.LSTM(H, recurrent_dropout=0.1)),
            "recurrent_dropout of the Bidirectional .* is 0.1",
        ),
        (
            lambda layers: layers.Bidirectional(layers.LSTM(H), merge_mode="sum"),
            "merge_mode of the Bidirectional .* is 'sum'",
        ),
        (lambda layers: layers.Bidirectional(layers.GRU(H)), "Bidirectional wraps GRU"),
        (lambda layers: layers.GRU(H), "got a GRU; expected keras.layers.LSTM"),
    ],
)
def test_rejects_keras_layer_option(need, make, message):
    layer = make(need("keras").layers)
    layer.build((B, T, F))
    with pytest.raises(ValueError, match=message):
        lstm_params_from_keras(layer)


def test_keras_layer_equals_its_weights(need):
    layers = need("keras").layers
    first = layers.Bidirectional(layers.LSTM(H, return_sequences=True, use_bias=False))
    first.build((B, T, F))
    second = layers.Bidirectional(layers.LSTM(H))
    second.build((B, T, 2 * H))
    expected = lstm_params_from_keras([*first.get_weights(), *second.get_weights()])
    chex.assert_trees_all_equal(lstm_params_from_keras([first, second]), expected)
