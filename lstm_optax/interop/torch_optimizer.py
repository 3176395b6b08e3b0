"""Optimizers of PyTorch, carried over in the middle of training: their options and their state."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.interop.files import as_numpy
from lstm_optax.presets import torch
from lstm_optax.transforms import (
    CenteredMeanSquareState,
    DampedMomentumState,
    DozatMomentumState,
    EmaState,
    MeanSquareState,
    MomentumState,
    RunningMaxState,
)

__all__ = ["optimizer_from_torch"]

_PRESETS = (torch.SGD, torch.RMSprop, torch.NAdam, torch.Adam, torch.AdamW)
_DEBIASED = (torch.NAdam, torch.Adam, torch.AdamW)  # whose steps depend on how many there were
_NEUTRAL = {"params", "param_names", "foreach", "fused", "capturable", "differentiable"}
_LATER = {"maximize": False, "decoupled_weight_decay": False}  # which older PyTorch does not save
_SOURCES = {  # where in PyTorch's state a field of a state here comes from: the first that is there
    (EmaState, "mu"): ("exp_avg",),
    (DozatMomentumState, "mu"): ("exp_avg",),
    (MeanSquareState, "nu"): ("exp_avg_sq", "square_avg"),
    (CenteredMeanSquareState, "mu"): ("grad_avg",),
    (CenteredMeanSquareState, "nu"): ("variance",),
    (RunningMaxState, "nu"): ("max_exp_avg_sq",),
    (MomentumState, "mu"): ("momentum_buffer",),
    (DampedMomentumState, "mu"): ("momentum_buffer",),
}
_KEYS = {key for keys in _SOURCES.values() for key in keys} - {"variance"} | {"step", "mu_product"}


class _Group(NamedTuple):
    """A param_group: its optimizer, and the state of each of its parameters by name."""

    tx: optax.GradientTransformationExtraArgs
    options: dict[str, Any]
    entries: dict[str, dict[str, Any]]  # empty where a parameter has no state yet
    step: int


def optimizer_from_torch(
    preset: Callable[..., optax.GradientTransformationExtraArgs],
    state_dict: Mapping[str, Any],
    params: Any,
    *,
    lr: optax.ScalarOrSchedule | Sequence[optax.ScalarOrSchedule] | None = None,
    step: int | None = None,
    names: Sequence[str] | None = None,
) -> tuple[optax.GradientTransformationExtraArgs, optax.OptState]:
    """Go on where an optimizer of PyTorch stopped: the preset with its options, and its state.

    The state is that of `init(params)`, its moments and counts PyTorch's; the next steps agree
    with PyTorch's to rounding. Several param_groups become an `optax.partition`, labelled 0, 1, …

    Args:
      preset: SGD, RMSprop, NAdam, Adam or AdamW of `presets.torch`.
      state_dict: of the optimizer, holding arrays or tensors.
      params: the parameters, by their names in PyTorch; the state is that of a plain dict of
        them. One that PyTorch holds fixed, and has no state of, may be left out.
      lr: in place of that of the param_groups; a schedule goes on from the count `step`. A list
        gives one for each group. Needed where a scheduler of PyTorch moved the rate.
      step: how many steps were done, for SGD, whose state does not tell.
      names: of all parameters in the order in which the optimizer got them, `model.parameters()`
        or group after group; by default those that the state dict has, else those of `params`.

    Raises:
      ValueError: an optimizer, option, name or shape that does not fit, or what PyTorch has in its
        state for each parameter and a preset for all: different steps.

    Reference: `torch.optim.Optimizer.state_dict`, PyTorch 2.13.
    """
    if preset not in _PRESETS:
        known = ", ".join(p.__name__ for p in _PRESETS)
        raise ValueError(f"the preset is {preset}, but must be of presets.torch: {known}")
    if not {"state", "param_groups"} <= set(state_dict):
        raise ValueError(f"the state dict has {list(state_dict)}; expected state and param_groups")
    groups = state_dict["param_groups"]
    rates = list(lr) if isinstance(lr, (list, tuple)) else [lr] * len(groups)
    if len(rates) != len(groups):
        raise ValueError(f"lr has {len(rates)} entries; expected one for each of {len(groups)}")
    if not isinstance(params, Mapping) or not all(hasattr(p, "shape") for p in params.values()):
        raise ValueError("params must be a flat dict of arrays by PyTorch's names")
    names = _names(groups, params, names)  # first: no order of a dict outlives a map by JAX
    params = {name: jnp.asarray(as_numpy(p)) for name, p in params.items()}
    entries = _entries(state_dict, names, params)
    parts = [
        _group(preset, group, rate, part, step)
        for group, rate, part in zip(groups, rates, entries, strict=True)
    ]
    if len(parts) == 1:
        return parts[0].tx, _filled(parts[0].tx.init(params), parts[0])
    label = {name: i for i, part in enumerate(parts) for name in part.entries}
    labels = jax.tree_util.tree_map_with_path(lambda path, _: label[path[-1].key], params)
    tx = optax.partition({i: part.tx for i, part in enumerate(parts)}, labels)
    state = tx.init(params)
    filled = {i: _filled(inner, parts[i]) for i, inner in state.inner_states.items()}  # pyright: ignore
    return tx, state._replace(inner_states=filled)  # pyright: ignore


def _names(groups, params, names) -> list[str]:
    """The name of each parameter, in the order of PyTorch's indices."""
    if names is None and all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
    if names is None:
        names = list(params)
        if len(groups) > 1 or (len(names) > 1 and names == sorted(names)):
            raise ValueError(
                "the order of the parameters is unknown: the state dict has no param_names, and "
                "the mapping is in alphabetical order, which JAX makes of any dict, or there are "
                "several param_groups; give names=, in the order in which the optimizer got them"
            )
    count = sum(len(group["params"]) for group in groups)
    if len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"the state dict has {count} parameters, but there are {len(names)} names, which must "
            f"be as many and differ: {list(names)}; give names=, of what the optimizer got"
        )
    unknown = sorted(set(params) - set(names))
    if unknown:
        raise ValueError(f"params has {unknown}, which the names do not have: {list(names)}")
    return list(names)


def _entries(state_dict, names: list[str], params) -> list[dict[str, dict[str, Any]]]:
    """For each group PyTorch's state of each parameter, by name; checked, as NumPy arrays."""
    indices = [index for group in state_dict["param_groups"] for index in group["params"]]
    unknown = [index for index in state_dict["state"] if index not in indices]
    if unknown:
        raise ValueError(f"there is a state of {unknown}, but the param_groups hold {indices}")
    remaining, groups = iter(names), []
    for group in state_dict["param_groups"]:
        entries = {}
        for index in group["params"]:
            name = next(remaining)
            entry = {
                key: np.asarray(as_numpy(value))
                for key, value in state_dict["state"].get(index, {}).items()
                if value is not None  # as a buffer that is not there yet
            }
            if name in params:
                entries[name] = _checked(name, entry, params[name].shape)
            elif entry:
                raise ValueError(f"{name!r} has a state, but is not in params: {sorted(params)}")
        groups.append(entries)
    return groups


def _checked(name: str, entry: dict[str, Any], shape: tuple) -> dict[str, Any]:
    unknown = sorted(entry.keys() - _KEYS)
    if unknown:
        raise ValueError(f"the state of {name!r} has {unknown}; known are {sorted(_KEYS)}")
    for key, value in entry.items():
        expected = () if key in ("step", "mu_product") else shape
        if value.shape != expected:
            raise ValueError(f"{key} of {name!r} has shape {value.shape}; expected {expected}")
    if "grad_avg" in entry and "square_avg" in entry:  # E[g²] − E[g]², rounded, may be below 0
        square, mean = (np.asarray(entry[key], float) for key in ("square_avg", "grad_avg"))
        entry["variance"] = np.maximum(square - mean**2, 0)
    return entry


def _group(preset, group, lr, entries, step) -> _Group:
    options = _options(preset, group, lr)
    step = _step(preset, entries, step, options)
    return _Group(preset(**options), options, entries, step)


def _options(preset, group, lr) -> dict[str, Any]:
    """The arguments of the preset from those of a group; each of both must have a place."""
    name, known = preset.__name__, set(inspect.signature(preset).parameters)
    given = {key: _number(value) for key, value in group.items() if key not in _NEUTRAL}
    if given.pop("initial_lr", None) is not None and lr is None:
        raise ValueError(
            f"a scheduler of PyTorch moved the rate, which is {given['lr']} now: give lr=, a "
            f"schedule of the step, or that number to keep it"
        )
    if preset is torch.AdamW and not given.pop("decoupled_weight_decay", True):
        raise ValueError("decoupled_weight_decay is False: this is a state dict of Adam")
    missing = sorted(known - given.keys() - _LATER.keys())
    unknown = sorted(given.keys() - known)
    if missing or unknown:
        raise ValueError(
            f"this is no state dict of {name}, or not of it alone: its param_groups lack "
            f"{missing}, and have {unknown}, which {name} does not know"
        )
    return given if lr is None else given | {"lr": lr}


def _step(preset, entries, step, options) -> int:
    """How many steps were done, which must be the same for all parameters."""
    steps = {name: int(entry["step"]) for name, entry in entries.items() if "step" in entry}
    without = [name for name, entry in entries.items() if not entry]
    if preset is torch.SGD:
        started = len(without) < len(entries)
        if step is None and callable(options["lr"]):
            raise ValueError("lr is a schedule, but the state of SGD holds no step: give step=")
        if started and options["dampening"] != 0 and without:
            raise ValueError(f"{without} have no momentum_buffer, which dampening tells apart")
        if started and step is not None and step < 1:
            raise ValueError(f"step is {step}, but there are momentum buffers: steps were done")
        return int(started) if step is None else step
    if len(set(steps.values())) > 1 or (steps and without and preset in _DEBIASED):
        steps |= dict.fromkeys(without, 0)
        raise ValueError(
            f"the parameters were stepped differently often, which {preset.__name__} here cannot "
            f"continue: {steps}; leave out of params those that PyTorch holds fixed, at step 0"
        )
    found = max(steps.values(), default=0)
    if step not in (None, found):
        raise ValueError(f"step is {step}, but the state dict is at {found}: leave step out")
    return found


def _filled(node: Any, group: _Group) -> Any:
    """The state `node` with PyTorch's moments and counts in place of its own."""
    if not hasattr(node, "_fields"):
        assert isinstance(node, tuple), f"no source for {node}"
        return tuple(_filled(link, group) for link in node)
    fields = {}
    for field, value in node._asdict().items():
        if field == "count":
            fields[field] = jnp.asarray(_count(node, group), value.dtype)
        elif field == "rate":  # of the last step: the next one writes it
            fields[field] = value
        elif field == "weight":  # of Dozat's average: 1 − P
            fields[field] = jnp.asarray(1 - _product(group), value.dtype)
        elif (type(node), field) in _SOURCES:
            keys = _SOURCES[type(node), field]
            fields[field] = jax.tree_util.tree_map_with_path(
                lambda path, leaf, keys=keys: _moment(group, path[-1].key, keys, leaf), value
            )
        else:
            fields[field] = _filled(value, group)
    return node._replace(**fields)


def _count(node: Any, group: _Group) -> int:
    """The count of a link; that of damped momentum tells whether there is a velocity yet."""
    if isinstance(node, DampedMomentumState) and not any(group.entries.values()):
        return 0
    return group.step


def _product(group: _Group) -> float:
    """PyTorch's mu_product, which must be the same for all parameters."""
    products = {float(entry["mu_product"]) for entry in group.entries.values() if entry}
    if len(products) > 1:
        raise ValueError(f"mu_product differs from one parameter to the next: {sorted(products)}")
    return products.pop() if products else 1.0


def _moment(group: _Group, name: str, keys: tuple[str, ...], like: jax.Array) -> jax.Array:
    """PyTorch's moment of a parameter, in the dtype of ours; zero where it has no state yet."""
    entry = group.entries[name]
    for key in keys:
        if key in entry:
            return jnp.asarray(entry[key], like.dtype)
    if entry and not (keys == ("momentum_buffer",) and group.options["momentum"] == 0):
        raise ValueError(f"the state of {name!r} lacks {' or '.join(keys)}: it has {sorted(entry)}")
    return like


def _number(value: Any) -> Any:
    """An option as Python has it: tensors of one number become that number."""
    if isinstance(value, (list, tuple)):
        return tuple(_number(v) for v in value)
    value = as_numpy(value)
    return value.item() if isinstance(value, (np.ndarray, np.number)) else value
