"""The check of a task names the field that is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_optax.tasks import Task


def loss(params, carry, batch, key):
    return jnp.mean(jnp.square(params - batch)), carry + 1


def batches(position, seed):
    return np.float32([position, seed])


def evaluate(params):
    return {"validation": params.sum(), "test": params.sum()}


def make_task(**changes):
    fields = dict(name="toy", init=lambda key: jnp.ones(2), loss=loss, batches=batches)
    fields |= dict(evaluate=evaluate, initial_carry=lambda: jnp.zeros(3))
    return Task(**fields | changes)


def test_good_task_is_refused():
    make_task().check()
    make_task(loss=lambda p, c, b, k: (p.sum(), c), initial_carry=tuple).check()
    make_task(evaluate=lambda p: {"validation": 0.5, "test": p.sum(), "more": 1}).check()
    make_task(metric="a", test_metric="a", evaluate=lambda p: {"a": p[0]}).check()
    make_task(initial_carry=lambda: (), loss=lambda p, c, b, k: (p.sum(), ())).check()
    assert Task("a", make_task().init, loss, batches, evaluate).initial_carry() == ()


def first_then(other):
    return lambda position, seed: batches(0, 0) if position == 0 else other


BAD = {
    "init": (dict(init=None), "init of the task is None, but must be a function"),
    "loss": (dict(loss=3), "loss of the task is 3, but must be a function"),
    "batches": (dict(batches=[1]), r"batches of the task is \[1\], but must be a function"),
    "evaluate": (dict(evaluate="a"), "evaluate of the task is 'a', but must be a function"),
    "initial_carry": (dict(initial_carry=()), r"initial_carry of the task is \(\), but must be"),
    "eval_every": (dict(eval_every=0), "eval_every is 0, but must be a whole number of at least 1"),
    "steps": (dict(steps=1.5), "steps is 1.5, but must be a whole number of at least 1"),
    "multiple": (dict(steps=10, eval_every=4), "steps is 10, but must be a multiple of eval_every"),
    "metrics": (dict(evaluate=lambda p: p.sum()), "evaluate must return a dictionary of metrics"),
    "metric": (
        dict(metric="loss"),
        "evaluate returns 'test', 'validation', but not 'loss', which the task names as its metric",
    ),
    "test_metric": (dict(test_metric="f1"), "evaluate returns .*, but not 'f1', which the task"),
    "scalar metric": (
        dict(evaluate=lambda p: {"validation": p.sum(), "test": p}),
        r"metric 'test' is float32\[2\], but must be a scalar",
    ),
    "nested metric": (
        dict(evaluate=lambda p: {"validation": p.sum(), "test": {"a": p}}),
        "metric 'test' is dict, but must be a scalar",
    ),
    "no arrays": (
        dict(batches=lambda p, s: None),
        r"batches\(0, 0\) is None, which holds no array",
    ),
    "text": (dict(batches=lambda p, s: "a"), r"batches\(0, 0\) is a tree with str in it"),
    "shape": (
        dict(batches=first_then(np.zeros(3, np.float32))),
        r"batches\(0, 0\) has \(2,\) float32, but batches\(1, 0\) has \(3,\) float32; all batches",
    ),
    "dtype": (
        dict(batches=first_then(np.zeros(2))),
        r".* has \(2,\) float32, but .* has \(2,\) flo",
    ),
    "structure": (dict(batches=first_then([batches(0, 0)])), r".* but batches\(1, 0\) has \['\(2,"),
    "pair": (dict(loss=lambda p, c, b, k: p.sum()), r"loss must return \(mean loss, new carry\)"),
    "three": (dict(loss=lambda p, c, b, k: (p.sum(), c, 1)), r"loss must return \(mean loss, new"),
    "scalar loss": (
        dict(loss=lambda p, c, b, k: (p, c)),
        r"loss returned float32\[2\] as mean loss, but must return a scalar float",
    ),
    "integer loss": (
        dict(loss=lambda p, c, b, k: (p.sum().astype(int), c)),
        r"loss returned int32\[\] as mean loss, but must return a scalar float",
    ),
    "nested loss": (dict(loss=lambda p, c, b, k: ((p.sum(),), c)), "loss returned tuple as mean"),
    "carry shape": (
        dict(loss=lambda p, c, b, k: (p.sum(), c[:2])),
        r"loss returned a carry of \(2,\) float32, but initial_carry\(\) has \(3,\) float32",
    ),
    "carry dtype": (
        dict(loss=lambda p, c, b, k: (p.sum(), c.astype(jnp.bfloat16))),
        r"loss returned a carry of \(3,\) bfloat16, but initial_carry\(\) has \(3,\) float32",
    ),
    "no carry": (
        dict(initial_carry=tuple, loss=lambda p, c, b, k: (p.sum(), p)),
        "loss returned a",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_field_is_accepted(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        make_task(**changes).check()


def test_check_runs_the_training():
    def trained(params, carry, batch, key):
        assert isinstance(params, jax.core.Tracer)
        return loss(params, carry, batch, key)

    make_task(loss=trained).check()


def test_errors_of_the_user_are_hidden():
    def broken(params, carry, batch, key):
        raise KeyError("my own error")

    with pytest.raises(KeyError, match="my own error"):
        make_task(loss=broken).check()
