"""Optimizers of PyTorch continued in the middle of training: options and state."""

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
_DEBIASED = (torch.NAdam, torch.Adam, torch.AdamW)  # bias correction depends on the count
_NEUTRAL = {"params", "param_names", "foreach", "fused", "capturable", "differentiable"}
_NEWER_OPTIONS = {"maximize": False, "decoupled_weight_decay": False}  # not saved by older PyTorch
_SOURCES = {  # keys of PyTorch's state for each field here; the first existing one is used
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
    """Optimizer of a param_group, with PyTorch's state of each parameter by name."""

    tx: optax.GradientTransformationExtraArgs
    options: dict[str, Any]
    entries: dict[str, dict[str, Any]]  # {} for a parameter without a state yet
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
    """Return the preset and the state that continue an optimizer of PyTorch.

    The state has the structure of `init(params)`, with PyTorch's moments and counts; the next steps
    agree with PyTorch's to rounding. Several param_groups become an `optax.partition` with the
    labels 0, 1, …

    Args:
      preset: SGD, RMSprop, NAdam, Adam or AdamW of `presets.torch`.
      state_dict: state dict of the optimizer, with arrays or tensors.
      params: the parameters by their names in PyTorch; the state is that of a plain dict of them. A
        parameter that PyTorch keeps fixed, so that it has no state, may be left out.
      lr: learning rate instead of that of the param_groups; a schedule continues from the count
        `step`. A list has one for each group. Required if a PyTorch scheduler changed the rate.
      step: number of completed steps, for SGD, whose state does not store it.
      names: names of all parameters in the order in which the optimizer got them,
        `model.parameters()` or group after group; by default those in the state dict, or else
        those of `params`.

    Raises:
      ValueError: a wrong optimizer, option, name or shape, or parameters with different step
        counts, since a preset has one count for all.

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
    # Before any JAX function: those sort the keys of a dict.
    names = _parameter_names(groups, params, names)
    params = {name: jnp.asarray(as_numpy(p)) for name, p in params.items()}
    entries = _entries_by_group(state_dict, names, params)
    parts = [
        _make_group(preset, group, rate, part, step)
        for group, rate, part in zip(groups, rates, entries, strict=True)
    ]
    if len(parts) == 1:
        return parts[0].tx, _fill_state(parts[0].tx.init(params), parts[0])
    label = {name: i for i, part in enumerate(parts) for name in part.entries}
    labels = jax.tree_util.tree_map_with_path(lambda path, _: label[path[-1].key], params)
    tx = optax.partition({i: part.tx for i, part in enumerate(parts)}, labels)
    state = tx.init(params)
    filled = {i: _fill_state(inner, parts[i]) for i, inner in state.inner_states.items()}  # pyright: ignore
    return tx, state._replace(inner_states=filled)  # pyright: ignore


def _parameter_names(groups, params, names) -> list[str]:
    """Return the name of each parameter, in the order of PyTorch's indices."""
    if names is None and all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
    if names is None:
        names = list(params)
        if len(groups) > 1 or (len(names) > 1 and names == sorted(names)):
            raise ValueError(
                "the order of the parameters is unknown: the state dict has no param_names, and "
                "params is in alphabetical order, to which JAX sorts any dict, or there are "
                "several param_groups; pass names=, in the order in which the optimizer got them"
            )
    count = sum(len(group["params"]) for group in groups)
    if len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"the state dict has {count} parameters, but there are {len(names)} names, which must "
            f"be as many and differ: {list(names)}; pass names= for all parameters of the optimizer"
        )
    unknown = sorted(set(params) - set(names))
    if unknown:
        raise ValueError(f"params has {unknown}, which are not in the names: {list(names)}")
    return list(names)


def _entries_by_group(state_dict, names: list[str], params) -> list[dict[str, dict[str, Any]]]:
    """Return PyTorch's state of each parameter by name, for each group, checked and as NumPy."""
    indices = [index for group in state_dict["param_groups"] for index in group["params"]]
    unknown = [index for index in state_dict["state"] if index not in indices]
    if unknown:
        raise ValueError(f"there is a state of {unknown}, but the param_groups have {indices}")
    remaining, groups = iter(names), []
    for group in state_dict["param_groups"]:
        entries = {}
        for index in group["params"]:
            name = next(remaining)
            entry = {
                key: np.asarray(as_numpy(value))
                for key, value in state_dict["state"].get(index, {}).items()
                if value is not None  # a buffer that does not exist yet
            }
            if name in params:
                entries[name] = _check_entry(name, entry, params[name].shape)
            elif entry:
                raise ValueError(f"{name!r} has a state, but is not in params: {sorted(params)}")
        groups.append(entries)
    return groups


def _check_entry(name: str, entry: dict[str, Any], shape: tuple) -> dict[str, Any]:
    """Return the state of a parameter, with the variance added for a centered RMSprop."""
    unknown = sorted(entry.keys() - _KEYS)
    if unknown:
        raise ValueError(f"the state of {name!r} has {unknown}; known are {sorted(_KEYS)}")
    for key, value in entry.items():
        expected = () if key in ("step", "mu_product") else shape
        if value.shape != expected:
            raise ValueError(f"{key} of {name!r} has shape {value.shape}; expected {expected}")
    if "grad_avg" in entry and "square_avg" in entry:  # by rounding, E[g²] − E[g]² may be < 0
        square, mean = (np.asarray(entry[key], float) for key in ("square_avg", "grad_avg"))
        entry["variance"] = np.maximum(square - mean**2, 0)
    return entry


def _make_group(preset, group, lr, entries, step) -> _Group:
    options = _preset_options(preset, group, lr)
    step = _step_count(preset, entries, step, options)
    return _Group(preset(**options), options, entries, step)


def _preset_options(preset, group, lr) -> dict[str, Any]:
    """Return the preset's arguments from a group's options, which must match one to one."""
    name, known = preset.__name__, set(inspect.signature(preset).parameters)
    given = {key: _as_python(value) for key, value in group.items() if key not in _NEUTRAL}
    if given.pop("initial_lr", None) is not None and lr is None:
        raise ValueError(
            f"a scheduler of PyTorch changed the rate, which is {given['lr']} now: pass lr=, a "
            f"schedule of the step, or that number to keep it"
        )
    if preset is torch.AdamW and not given.pop("decoupled_weight_decay", True):
        raise ValueError("decoupled_weight_decay is False: this is a state dict of Adam")
    missing = sorted(known - given.keys() - _NEWER_OPTIONS.keys())
    unknown = sorted(given.keys() - known)
    if missing or unknown:
        raise ValueError(
            f"this is no state dict of {name}, or not of {name} only: its param_groups lack "
            f"{missing}, and have {unknown}, which {name} does not know"
        )
    return given if lr is None else given | {"lr": lr}


def _step_count(preset, entries, step, options) -> int:
    """Return the number of completed steps, which must be the same for all parameters."""
    steps = {name: int(entry["step"]) for name, entry in entries.items() if "step" in entry}
    without = [name for name, entry in entries.items() if not entry]
    if preset is torch.SGD:
        started = len(without) < len(entries)
        if step is None and callable(options["lr"]):
            raise ValueError("lr is a schedule, but the state of SGD has no step count: pass step=")
        if started and options["dampening"] != 0 and without:
            raise ValueError(
                f"{without} have no momentum_buffer, so dampening would differ between parameters"
            )
        if started and step is not None and step < 1:
            raise ValueError(f"step is {step}, but there are momentum buffers: pass the steps done")
        return int(started) if step is None else step
    if len(set(steps.values())) > 1 or (steps and without and preset in _DEBIASED):
        steps |= dict.fromkeys(without, 0)
        raise ValueError(
            f"the parameters have different step counts, which {preset.__name__} here cannot "
            f"continue: {steps}; leave out of params those that PyTorch keeps fixed, at step 0"
        )
    found = max(steps.values(), default=0)
    if step not in (None, found):
        raise ValueError(f"step is {step}, but the state dict is at {found}: leave step out")
    return found


def _fill_state(node: Any, group: _Group) -> Any:
    """Return the state `node` with PyTorch's moments and counts."""
    if not hasattr(node, "_fields"):
        assert isinstance(node, tuple), f"no source for {node}"
        return tuple(_fill_state(link, group) for link in node)
    fields = {}
    for field, value in node._asdict().items():
        if field == "count":
            fields[field] = jnp.asarray(_link_count(node, group), value.dtype)
        elif field == "rate":  # of the last step; the next step overwrites it
            fields[field] = value
        elif field == "weight":  # of Dozat's average: 1 − ∏ μ
            fields[field] = jnp.asarray(1 - _mu_product(group), value.dtype)
        elif (type(node), field) in _SOURCES:
            keys = _SOURCES[type(node), field]
            fields[field] = jax.tree_util.tree_map_with_path(
                lambda path, leaf, keys=keys: _moment(group, path[-1].key, keys, leaf), value
            )
        else:
            fields[field] = _fill_state(value, group)
    return node._replace(**fields)


def _link_count(node: Any, group: _Group) -> int:
    """Return the count of a link; for damped momentum, 0 until there is a velocity."""
    if isinstance(node, DampedMomentumState) and not any(group.entries.values()):
        return 0
    return group.step


def _mu_product(group: _Group) -> float:
    """Return PyTorch's mu_product, which must be the same for all parameters."""
    products = {float(entry["mu_product"]) for entry in group.entries.values() if entry}
    if len(products) > 1:
        raise ValueError(f"mu_product differs from one parameter to the next: {sorted(products)}")
    return products.pop() if products else 1.0


def _moment(group: _Group, name: str, keys: tuple[str, ...], like: jax.Array) -> jax.Array:
    """Return PyTorch's moment of a parameter in our dtype; zero if it has no state yet."""
    entry = group.entries[name]
    for key in keys:
        if key in entry:
            return jnp.asarray(entry[key], like.dtype)
    if entry and not (keys == ("momentum_buffer",) and group.options["momentum"] == 0):
        raise ValueError(f"the state of {name!r} lacks {' or '.join(keys)}: it has {sorted(entry)}")
    return like


def _as_python(value: Any) -> Any:
    """Return an option as a Python value; a tensor with one number becomes that number."""
    if isinstance(value, (list, tuple)):
        return tuple(_as_python(v) for v in value)
    value = as_numpy(value)
    return value.item() if isinstance(value, (np.ndarray, np.number)) else value
