"""The arguments of all public factories: numbers, flags, transformations reject wrong values.

The valid range of a number is read from the docstring, so docstring and code cannot differ.
"""

import inspect
import re
from collections.abc import Callable
from decimal import Decimal
from importlib import import_module
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from build_models import language_model, sequence_model
from flax import nnx

import lstm_optax as lo
from lstm_optax import optimizers, presets, transforms

INF, NAN = float("inf"), float("nan")
NO_FACTORIES = {"eval_params", "find_states", "global_norm", "report_validation_loss"}
REQUIRED = {  # a value for each argument without a default
    "learning_rate": 0.1,
    "decay": 0.5,
    "dampening": 0.5,
    "psi": 1.0,
    "momentum": 0.5,
    "max_norm": 1.0,
    "grad_clip": 1.0,
    "weight_decay": 0.1,
    "every": 2,
    "inner": lo.sgd(0.1),
    "average": lo.polyak_average(lo.sgd(0.1)),
    "direction": lo.ema(0.9),
    "second_moment": lo.mean_square(0.9),
    "tx": lo.sgd(0.1),
}
KERAS = {  # documented once for all Keras optimizers
    "weight_decay": "≥ 0, or None",
    "clipnorm": "≥ 0, or None",
    "clipvalue": "≥ 0, or None",
    "global_clipnorm": "≥ 0, or None",
    "use_ema": "",
    "ema_momentum": "in [0, 1]",
    "ema_overwrite_frequency": "≥ 1, or None",
    "loss_scale_factor": "> 0, or None",
}
SPECIAL = {"gates", "tx", "others"}  # of `by_gate`, which has tests of its own


def factories() -> dict[str, Callable]:
    """Return all public functions that return a transformation or a schedule, by full name."""
    ours = {n: getattr(room, n) for room in (transforms, optimizers) for n in room.__all__}
    found = {n: f for n, f in ours.items() if inspect.isfunction(f) and n not in NO_FACTORIES}
    for source in presets.__all__:
        module = import_module(f"lstm_optax.presets.{source}")
        found |= {f"{source}.{name}": getattr(module, name) for name in module.__all__}
    return dict(sorted(found.items()))


FACTORIES = {n: f for n, f in factories().items() if n != "sutskever.eval_params"}


class Argument(NamedTuple):
    """An argument of a factory, and its text in the docstring."""

    factory: str
    name: str
    kind: Any  # the annotation
    text: str

    def __str__(self) -> str:
        return f"{self.factory}({self.name})"

    def build(self, value: Any) -> Any:
        """Return the factory's result with this value for this argument."""
        make = FACTORIES[self.factory]
        needed = [
            p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty
        ]
        return make(**{name: REQUIRED[name] for name in needed} | {self.name: value})

    @property
    def error(self) -> str:
        return f"^{re.escape(self.name)} (is|has) "


def arguments() -> list[Argument]:
    """Return every argument of every factory."""
    found = []
    for factory, make in FACTORIES.items():
        doc = inspect.getdoc(make) or ""
        texts = dict(re.findall(r"^  (\w+): ((?:.|\n    )*)", doc, re.M))
        for p in inspect.signature(make).parameters.values():
            if p.kind is p.VAR_KEYWORD or p.name in SPECIAL:
                continue
            text = KERAS.get(p.name) if factory.startswith("keras.") else None
            found.append(Argument(factory, p.name, p.annotation, text or texts.get(p.name, "")))
    return found


def is_number(argument: Argument) -> bool:
    return not (is_flag(argument) or is_transformation(argument)) and (
        argument.name not in {"betas", "mask", "weight_decay_mask", "nonfinite"}
    )


def is_flag(argument: Argument) -> bool:
    return argument.kind is bool


def is_transformation(argument: Argument) -> bool:
    return inspect.isclass(argument.kind) and issubclass(
        argument.kind, optax.GradientTransformation
    )


def each(found: list[Argument]) -> Any:
    return pytest.mark.parametrize("argument", found, ids=str)


ALL = arguments()
NUMBERS = [a for a in ALL if is_number(a)]
NON_NUMBERS = [
    *("abc", "0.1", 1j, np.complex64(0.1), object(), [0.1], (0.1, 0.2), {}, {"a": 0.1}, b"1"),
    *(NAN, np.float32(NAN), np.array(NAN), jnp.float32(NAN), -INF, np.float64(-INF)),
    *(True, False, np.bool_(True), np.array(True), jnp.array(True), 10**400, Decimal("0.1")),
    *(np.array([0.1, 0.2]), np.array([0.1]), jnp.array([0.1, 0.2]), jnp.array([0.1])),
    *(jnp.complex64(0.1), np.array("0.1"), jax.ShapeDtypeStruct((), jnp.float32)),
    *(nnx.Param(jnp.float32(0.1)), float, lambda count: 0.1),
]


def range_of(argument: Argument) -> tuple[list[float], list[float]]:
    """Return numbers inside the documented range, and numbers outside it."""
    text = argument.text
    whole = argument.kind in (int, int | None)
    if re.search(r"in \[0, 1\)", text):
        return [0.0, 0.5, 0.99], [-0.1, 1.0, 1.5, INF]
    if re.search(r"in \[0, 1\]", text):
        return [0.0, 0.5, 1.0], [-0.1, 1.1, INF]
    if "any number" in text:
        return [-2.0, 0.0, 3.0], [INF]
    if found := re.search(r"> (\d)", text):
        low = int(found[1])
        return [low + 0.1, 1024.0], [float(low), low - 1.0, INF]
    if found := re.search(r"≥ (\d)", text):
        low = int(found[1])
        if whole:
            return [low, low + 3], [low - 1, low + 0.5, float(low), INF]
        ends = [INF] if "∞" in text else []
        return [float(low), low + 2.5, *ends], [low - 0.1, *({INF} - set(ends))]
    raise AssertionError(f"{argument} has no range: {text!r}")


def in_every_form(value: float) -> list[Any]:
    """Return the number as a Python, NumPy and JAX number."""
    if isinstance(value, int):
        return [value, np.int32(value), np.array(value)]
    return [value, np.float32(value), np.float64(value), np.array(value), jnp.float32(value)]


def test_every_number_has_a_range():
    assert len(NUMBERS) > 130
    for argument in NUMBERS:
        inside, outside = range_of(argument)
        assert inside and outside


@each(NUMBERS)
def test_numbers_out_of_range_are_rejected(argument):
    outside = [v for number in range_of(argument)[1] for v in in_every_form(number)]
    non_numbers = NON_NUMBERS if "None" in argument.text else [None, *NON_NUMBERS]
    if "or a schedule" in argument.text:
        non_numbers = [v for v in non_numbers if not callable(v) or isinstance(v, nnx.Variable)]
    for value in outside + non_numbers:
        with pytest.raises(ValueError, match=argument.error):
            argument.build(value)


@each(NUMBERS)
def test_numbers_in_range_are_accepted(argument):
    """In every form, traced, and as a schedule or None where the docstring says so."""
    for number in range_of(argument)[0]:
        if argument.name in ("momentum", "dampening") and "nesterov" in argument.factory:
            continue
        for value in in_every_form(number):
            argument.build(value)
    number = range_of(argument)[0][-1]
    if not isinstance(number, int):
        jax.eval_shape(lambda x: argument.build(x) and x, jax.ShapeDtypeStruct((), jnp.float32))
    if "or a schedule" in argument.text:
        argument.build(lambda count: number)
    if "None" in argument.text:
        argument.build(None)


@each([a for a in NUMBERS if a.kind is not int])
def test_traced_non_numbers_are_rejected(argument):
    for shape, dtype in (((2,), jnp.float32), ((), jnp.complex64), ((), jnp.bool_)):
        wrong = jax.ShapeDtypeStruct(shape, dtype)
        with pytest.raises(ValueError, match=argument.error):
            jax.eval_shape(lambda x: argument.build(x) and x, wrong)


@each([a for a in NUMBERS if a.name in ("window", "nonmonotone")])
def test_static_numbers_reject_jax_arrays(argument):
    for value in (jnp.int32(3), jnp.array([3])):
        with pytest.raises(ValueError, match=rf"static_args=\('{argument.name}',\)"):
            argument.build(value)
    with pytest.raises(ValueError, match="static_args"):
        jax.eval_shape(lambda x: argument.build(x) and x, jax.ShapeDtypeStruct((), jnp.int32))


@each([a for a in ALL if is_flag(a)])
def test_flags_reject_other_types(argument):
    for value in (None, "abc", 1, 0.0, NAN, [True], np.array([True]), object()):
        with pytest.raises(ValueError, match=argument.error):
            argument.build(value)


@each([a for a in ALL if is_transformation(a)])
def test_transformations_reject_other_types(argument):
    for value in (None, "abc", 0.1, lo.sgd, optax.GradientTransformation, {}, [lo.sgd(0.1)]):
        with pytest.raises(ValueError, match=argument.error):
            argument.build(value)


@each([a for a in ALL if a.name in ("mask", "weight_decay_mask")])
def test_masks_reject_other_leaves(argument):
    for value in ("abc", 1, 0.5, {"a": "yes"}, [1, 0], NAN, np.array([True, False]), object()):
        with pytest.raises(ValueError, match=argument.error):
            argument.build(value)
    params = {"a": jnp.ones(2)}
    tx = argument.build(lambda params: {"a": "yes"})
    with pytest.raises(ValueError, match=f"the result of {argument.name} has the leaf 'yes'"):
        tx.init(params)
    for value in (None, True, {"a": False}, {"a": np.bool_(True)}, lambda params: {"a": True}):
        argument.build(value).init(params)


@each([a for a in ALL if a.name in ("mask", "weight_decay_mask")])
def test_masks_reject_other_trees(argument):
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    for value in ({}, {"a": True}, [True, False], {"a": None, "b": True}):
        for mask, name in ((value, ""), (lambda params, tree=value: tree, "the result of ")):
            with pytest.raises(ValueError, match=f"^{name}{argument.name} is not a prefix"):
                argument.build(mask).init(params)


def test_numbers_too_large_are_rejected():
    for build in (lo.clip_by_global_norm, lo.sgd, lambda v: lo.adam(0.1, eps=v)):
        for value in (2**31, 10**10, np.int64(2**32), 10**5000, 1e39, np.float64(1e300)):
            with pytest.raises(ValueError, match="^(max_norm|learning_rate|eps) is "):
                build(value)


def test_numpy_masked_numbers_are_rejected():
    for value in (np.ma.masked, np.ma.array(0.1, mask=True), np.ma.array(0.1)):
        with pytest.raises(ValueError, match="^learning_rate is "):
            lo.sgd(value)


INVALID_RATES = [None, "a", NAN, -0.1, True, 1j, np.array([0.1]), [0.1], np.ones(2)]


@pytest.mark.parametrize("value", INVALID_RATES, ids=str)
def test_schedules_reject_results_without_number(value):
    rules = {
        lo.sgd: {},
        presets.torch.ASGD: {},
        lo.momentum: {},
        lo.ema: {},
        presets.keras.Adam: {"weight_decay": 0.1},
        lambda schedule: lo.corrected_momentum(0.9, schedule): {},
    }
    params = {"a": jnp.ones(2)}
    for make, options in rules.items():
        tx = make(lambda count: value, **options)
        with pytest.raises(ValueError, match="^the result of the schedule <lambda> is "):
            tx.update(params, tx.init(params), params)


def test_traced_schedules_reject_shape_and_dtype():
    for schedule in (lambda count: jnp.ones(2) * count, lambda count: count > 0):
        with pytest.raises(ValueError, match="^the result of the schedule <lambda> is an array"):
            jax.eval_shape(lo.sgd(schedule).init, jnp.ones(2))


def test_extra_args_reject_wrong_values():
    params = {"a": jnp.ones(2)}
    for tx, name, wrong in (
        (lo.scale_by_rate_factor(), "rate_factor", (None, "a", -1.0, NAN, True, 1j, np.ones(2))),
        (lo.guard(lo.sgd(0.1)), "value", ("a", True, 1j, np.ones(2))),
        (lo.loss_scaling(lo.sgd(0.1)), "value", ("a", True, 1j, np.ones(2))),
    ):
        for value in wrong:
            with pytest.raises(ValueError, match=f"^{name} is "):
                tx.update(params, tx.init(params), params, **{name: value})


@each([a for a in ALL if a.name == "nonfinite"])
def test_choices_reject_other_values(argument):
    for value in (None, True, "abc", 1, ["pass"], np.array(["pass", "zero"])):
        with pytest.raises(ValueError, match=argument.error):
            argument.build(value)


@each([a for a in ALL if a.name == "betas"])
def test_betas_reject_wrong_values(argument):
    for value in (None, "ab", 0.9, (0.9,), (0.9, 0.9, 0.9), np.array([0.9, 0.9])):
        with pytest.raises(ValueError, match="^betas is "):
            argument.build(value)
    for wrong in [None, -0.1, 1.0, np.float32(1.0), *NON_NUMBERS]:
        for i in range(2):
            betas = [0.9, 0.9]
            betas[i] = wrong
            with pytest.raises(ValueError, match=rf"^betas\[{i}\] is "):
                argument.build(tuple(betas))
    argument.build([0.0, jnp.float32(0.5)])


def test_every_argument_is_tested():
    tested = NUMBERS + [a for a in ALL if is_flag(a) or is_transformation(a)]
    others = {a.name for a in ALL} - {a.name for a in tested}
    assert others == {"betas", "mask", "weight_decay_mask", "nonfinite"}
    assert all(get_args(a.kind) for a in ALL if a.name == "nonfinite")


@pytest.mark.parametrize("momentum", [0, 0.0, np.float32(0), jnp.float32(0)])
def test_nesterov_rejects_zero_momentum(momentum):
    with pytest.raises(ValueError, match="^momentum is 0.* nesterov needs momentum"):
        presets.torch.SGD(nesterov=True, momentum=momentum)


def test_nesterov_rejects_dampening():
    for dampening in (0.1, -0.1, np.float32(0.1), jnp.float32(0.1)):
        with pytest.raises(ValueError, match="^dampening is -?0.1.* no dampening"):
            presets.torch.SGD(nesterov=True, momentum=0.9, dampening=dampening)


def test_by_gate_rejects_other_types():
    for value in ("abc", 0.1, lo.sgd, [lo.sgd(0.1)]):
        with pytest.raises(ValueError, match="^tx is "):
            lo.by_gate(value)
        with pytest.raises(ValueError, match=r"^tx\['forget'\] is "):
            lo.by_gate({"forget": value}, others=lo.sgd(0.1))
        with pytest.raises(ValueError, match="^others is "):
            lo.by_gate({"forget": lo.sgd(0.1)}, others=value)


KEY = jax.random.key(0)
WEIGHTS = {"lstm": nnx.to_pure_dict(nnx.state(lo.LSTM(2, 3, rngs=nnx.Rngs(0)), nnx.Param))}


def lstm(**options):
    return lo.LSTM(**{"in_features": 2, "hidden_features": 3, "rngs": nnx.Rngs(0)} | options)


def language(**options):
    options = {"vocabulary": 3, "in_features": 2, "hidden_features": 2} | options
    return language_model(**options, rngs=nnx.Rngs(0))


def sequence(**options):
    options = {"in_features": 2, "out_features": 2, "hidden_features": 2} | options
    return sequence_model(**options, rngs=nnx.Rngs(0))


def clipped(**bounds):
    return lstm(cotangent_clip=lo.CotangentClip(**bounds))


def clipped_norm(**bounds):
    return lstm(cotangent_clip=lo.CotangentNormClip(**bounds))


WHOLE, SHARE = [0, -1, 1.5, 2.0, INF], [-0.1, 1.0, INF]
OTHERS = [  # other functions with a number: a call, the argument, numbers out of range
    *((lstm, n, WHOLE) for n in ("in_features", "hidden_features", "num_layers")),
    *((lstm, n, SHARE) for n in ("dropout", "weight_dropout")),
    (lstm, "forget_bias", [INF]),
    *((language, n, WHOLE) for n in ("vocabulary", "in_features", "hidden_features")),
    *((language, n, SHARE) for n in ("dropout", "weight_dropout", "embedding_dropout")),
    *((sequence, n, WHOLE) for n in ("in_features", "out_features", "hidden_features")),
    (lo.data.adding, "length", [1, 9.5, 10.0, INF]),
    (lo.data.temporal_order, "length", [9, 10.0, INF]),
    (lo.data.copy_memory, "delay", WHOLE),
    (lo.data.delayed_xor, "delay", WHOLE),
    (lambda **a: lo.data.adding()(**{"position": 0, "batch": 2} | a), "batch", WHOLE),
    (lambda **a: lo.data.adding()(**{"position": 0, "batch": 2} | a), "position", [-1, 0.5, INF]),
    (lambda **a: lo.data.adding()(0, batch=2, **a), "seed", [-1, 0.5, INF]),
    (lambda **a: lo.init_forget_bias(WEIGHTS, **a), "value", [INF]),
    (lambda **a: lo.init_chrono(WEIGHTS, KEY, **a), "max_time", [1.9, INF]),
    (lambda **a: lo.init_orthogonal(WEIGHTS, KEY, **a), "scale", [INF]),
    (lambda **a: lo.clip_cotangent(jnp.ones(2), **{"low": -1, "high": 1} | a), "low", []),
    (lambda **a: lo.clip_cotangent(jnp.ones(2), **{"low": -1, "high": 1} | a), "high", []),
    (lambda **a: lo.clip_cotangent_norm(jnp.ones(2), **a), "max_norm", [-0.1]),
]
FIELDS = [(make, name) for make in (clipped, clipped_norm) for name in ("h", "c", "gates")]
TAKES_ALL_REALS = {"low", "high"}


@pytest.mark.parametrize(
    "make, name, outside", OTHERS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_other_functions_reject_wrong_numbers(make, name, outside):
    wrong = [v for number in outside for v in in_every_form(number)]
    non_numbers = [None, *NON_NUMBERS]
    if name in TAKES_ALL_REALS:
        non_numbers = [v for v in non_numbers if not (np.shape(v) == () and str(v) == "-inf")]
    for value in wrong + non_numbers:
        with pytest.raises(ValueError, match=f"^{name} is "):
            make(**{name: value})


@pytest.mark.parametrize("make, name", FIELDS, ids=lambda x: x if isinstance(x, str) else "")
def test_cotangent_clips_reject_wrong_bounds(make, name):
    not_pairs = [value for value in NON_NUMBERS if type(value) is not tuple]
    for value in (-1.0, np.float32(-1), *not_pairs):
        with pytest.raises(ValueError, match=f"^cotangent_clip.{name}: "):
            make(**{name: value})
