"""The programs of a train row: the train step of a language model, ours and Flax with Optax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lstm_optax.bench.config import LOWER_BOUND, OURS
from lstm_optax.bench.lower_bounds import matmul_bound
from lstm_optax.bench.programs import Program, compile_ahead
from lstm_optax.bench.torch_train import torch_train
from lstm_optax.bench.workloads import TrainRow
from lstm_optax.data import Batch
from lstm_optax.lstm import LSTM
from lstm_optax.models import LanguageModel
from lstm_optax.optimizers import OPTIMIZERS
from lstm_optax.runs.build import make_losses
from lstm_optax.runs.devices import find_devices, make_sharding
from lstm_optax.training import init_state, make_step
from lstm_optax.training.step import program_of
from lstm_optax.transforms import clip_by_global_norm

CLIP, LEARNING_RATE = 1.0, 1e-3


def train_program(
    name: str, row: TrainRow, measure: str, steps: int, seed: int, unroll: int = 1
) -> Program:
    """Return the program of a contender for a measure of a row.

    The step clips the norm at 1, then applies Adam, which is the same algorithm in all libraries.
    The batches come from the host, as in training.
    """
    if name == LOWER_BOUND:
        return matmul_bound(row, "step" if measure == "step" else "steps", steps)
    batches = [_draw_batch(row, seed + i) for i in range(1 if measure == "step" else steps)]
    rngs = nnx.Rngs(seed)
    model = LanguageModel(row.vocabulary, LSTM(row.embedding, row.hidden, rngs=rngs), rngs=rngs)
    if name == OURS:
        return _lstm_optax_program(row, model, batches, as_used=measure == "used")
    weights = _weights(nnx.state(model, nnx.Param))
    if name == "torch":
        return torch_train(weights, batches, LEARNING_RATE, CLIP)
    return _flax_program(row, weights, batches, unroll, one_call=measure != "used")


def _draw_batch(row: TrainRow, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    shape = (row.time, row.batch)
    tokens, targets = (rng.integers(row.vocabulary, size=shape, dtype=np.int32) for _ in range(2))
    return Batch(tokens, targets, np.zeros(shape, bool))


def _lstm_optax_program(
    row: TrainRow, model: LanguageModel, batches: list[Batch], *, as_used: bool
) -> Program:
    """Return a program of all steps in one dispatch, as `fit` runs them.

    With `as_used`, the batch is sharded over the devices that `lstm-optax train` would use.
    """
    devices = find_devices(row.batch) if as_used else jax.devices()[:1]
    sharding = make_sharding(devices)
    graph, params = nnx.split(model)
    optimizer = optax.chain(clip_by_global_norm(CLIP), OPTIMIZERS["adam"](LEARNING_RATE))
    step = make_step(make_losses(graph)[0], optimizer)
    state = init_state(params, optimizer, model.lstm.initial_carry(row.batch), jax.random.key(0))
    count, before = np.int32(len(batches)), _weights(params)
    state = sharding.state(state) if sharding else state

    def stacked():
        stack = jax.tree.map(lambda *xs: np.stack(xs), *batches)
        return sharding.batches(stack) if sharding else stack

    compiled, seconds, memory = compile_ahead(program_of(step), state, stacked(), count)
    current = [state]  # donated to each call

    def call():
        current[0], metrics = compiled(current[0], stacked(), count)
        return jax.block_until_ready((current[0].params, metrics.loss))

    def values(result: Any):
        return _changes(_weights(result[0]), before, result[1])

    return Program(call, values, len(batches), seconds, memory)


class _FlaxModel(nnx.Module):
    """The same model, built from Flax's layers."""

    def __init__(self, row: TrainRow, unroll: int):
        rngs = nnx.Rngs(0)
        self.embedding = nnx.Embed(row.vocabulary, row.embedding, rngs=rngs)
        self.cell = nnx.OptimizedLSTMCell(row.embedding, row.hidden, rngs=rngs)
        self.unroll = unroll
        self.output = nnx.Linear(row.hidden, row.vocabulary, rngs=rngs)

    def __call__(self, tokens, carry):
        rnn = nnx.RNN(self.cell, time_major=True, return_carry=True, unroll=self.unroll)
        last, outputs = rnn(self.embedding(tokens), initial_carry=carry)
        return self.output(jnp.asarray(outputs)), last


def _flax_program(
    row: TrainRow, weights: dict, batches: list[Batch], unroll: int, *, one_call: bool
):
    """Return a program of the steps in one dispatch, by a scan, or of one step per call."""
    model = _FlaxModel(row, unroll)
    _set_weights(model, weights)
    graph, params = nnx.split(model, nnx.Param)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(LEARNING_RATE))

    def loss(params, carry, batch):
        logits, carry = nnx.merge(graph, params)(batch.inputs, carry)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return jnp.mean(losses), carry

    def step(state, batch):
        params, opt_state, carry = state
        (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(params, carry, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, carry), value

    def several(state, batches):
        return jax.lax.scan(step, state, batches)

    def stacked():
        return jax.tree.map(lambda *xs: np.stack(xs), *batches)

    carry = tuple(jnp.zeros((row.batch, row.hidden)) for _ in range(2))
    state = jax.tree.map(jnp.copy, (params, optimizer.init(params), carry))
    program = jax.jit(several if one_call else step, donate_argnums=0)
    first = stacked() if one_call else batches[0]
    compiled, seconds, memory = compile_ahead(program, state, first)
    current = [state]  # donated to each call

    def call():
        for batch in [stacked()] if one_call else batches:
            current[0], losses = compiled(current[0], batch)
        return jax.block_until_ready((current[0][0], losses))

    def values(result: Any):
        return _changes(_flax_weights(result[0]), weights, np.ravel(result[1])[-1])

    return Program(call, values, len(batches), seconds, memory)


def _weights(params: Any) -> dict[str, np.ndarray]:
    """Return the parameters of a `LanguageModel` as arrays by name."""
    lstm = params["lstm"]["layers"][0]["forward"]
    arrays = {"embedding": params["embedding"]["embedding"]}
    arrays |= {name: lstm[name] for name in ("kernel_ih", "kernel_hh", "bias")}
    arrays |= {f"output.{name}": params["output"][name] for name in ("kernel", "bias")}
    return {name: np.array(array[...]) for name, array in arrays.items()}


def _flax_weights(params: Any) -> dict[str, np.ndarray]:
    return {name: np.array(param[...]) for name, param in _flax_params(params).items()}


def _flax_params(params: Any) -> dict[str, Any]:
    cell = params["cell"]
    arrays = {"embedding": params["embedding"]["embedding"]}
    arrays |= {"kernel_ih": cell["dense_i"]["kernel"], "kernel_hh": cell["dense_h"]["kernel"]}
    arrays |= {"bias": cell["dense_h"]["bias"]}
    return arrays | {f"output.{name}": params["output"][name] for name in ("kernel", "bias")}


def _set_weights(model: nnx.Module, weights: dict[str, np.ndarray]) -> None:
    params = nnx.state(model, nnx.Param)
    for name, param in _flax_params(params).items():
        param[...] = jnp.asarray(weights[name])
    nnx.update(model, params)


def _changes(after: dict, before: dict, loss: Any) -> dict[str, np.ndarray]:
    """Return the change of each parameter, and the loss of the last step."""
    change = {name: np.asarray(after[name], np.float64) - before[name] for name in before}
    return change | {"loss": np.asarray(loss, np.float64)}
