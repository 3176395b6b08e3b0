"""The sources themselves, run on the same problem: PyTorch, and Keras on its JAX backend."""

import warnings
from contextlib import contextmanager

import numpy as np
from preset_cases import Case, Problem


@contextmanager
def torch_in(dtype):
    """PyTorch with that default dtype, in which its NAdam keeps a product."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == np.float64 else torch.float32)
    try:
        yield torch
    finally:
        torch.set_default_dtype(before)


def torch_path(case: Case, at: Problem, states: list | None = None) -> list[np.ndarray]:
    """The parameters of PyTorch's optimizer before the first step and after each, per leaf.

    The last state of each leaf is appended to `states`.
    """
    with torch_in(at.params[0].dtype) as torch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        params = [torch.tensor(p, requires_grad=True) for p in at.params]
        optimizer = getattr(torch.optim, case.name)(params, lr=0.0, **dict(case.options))
        path = [[p] for p in at.params]
        for t, rate in enumerate(at.rates):
            optimizer.param_groups[0]["lr"] = float(rate)
            for p, g in zip(params, at.gradients, strict=True):
                p.grad = torch.tensor(g[t])
            optimizer.step()
            for row, p in zip(path, params, strict=True):
                row.append(p.detach().numpy().copy())
        if states is not None:
            states += [optimizer.state[p] for p in params]
    return [np.stack(row) for row in path]


def keras_path(case: Case, at: Problem, states: list | None = None) -> list[np.ndarray]:
    """The parameters of Keras' optimizer before the first step and after each, per leaf.

    `optimizer.apply` runs compiled, as `stateless_apply`, which calls it. The last variables of
    the optimizer, by name, are appended to `states`.
    """
    import jax
    import jax.numpy as jnp
    import keras

    assert keras.backend.backend() == "jax"
    dtype = str(at.params[0].dtype)

    class Rates(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return jnp.asarray(at.rates, dtype)[jnp.asarray(step)]

    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    try:
        params = [keras.Variable(p, dtype=dtype, name=f"leaf{i}") for i, p in enumerate(at.params)]
        optimizer = getattr(keras.optimizers, case.name)(
            learning_rate=Rates(), **dict(case.options)
        )
        optimizer.build(params)

        def body(loop, g):
            values, variables = loop
            values, variables = optimizer.stateless_apply(variables, g, values)
            return (values, variables), values

        start = ([v.value for v in params], [v.value for v in optimizer.variables])
        gradients = [jnp.asarray(g, dtype) for g in at.gradients]
        (_, last), path = jax.jit(lambda s, g: jax.lax.scan(body, s, g))(start, gradients)
    finally:
        keras.config.set_floatx(before)
    if states is not None:
        states.append({v.path: value for v, value in zip(optimizer.variables, last, strict=True)})
    return [
        np.concatenate([p[None], np.asarray(leaf)]) for p, leaf in zip(at.params, path, strict=True)
    ]


def keras_path_of_apply(case: Case, at: Problem) -> list[np.ndarray]:
    """The same by `optimizer.apply` on plain variables, one step at a time."""
    import keras

    params = [keras.Variable(p, dtype=str(p.dtype)) for p in at.params]
    optimizer = getattr(keras.optimizers, case.name)(
        learning_rate=lambda: rate, **dict(case.options)
    )
    path = [[p] for p in at.params]
    for t, rate in enumerate(at.rates):  # noqa: B007 - the optimizer asks for it
        optimizer.apply([g[t] for g in at.gradients], params)
        for row, p in zip(path, params, strict=True):
            row.append(np.asarray(p))
    return [np.stack(row) for row in path]


PATHS = {"torch": torch_path, "keras": keras_path}
