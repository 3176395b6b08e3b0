"""The table of all rules: how to build each, and what its contracts need. A new rule is a row."""

import optax
from presets_table import PRESETS
from rows import INSIDE, LINEAR, LSTM, OUTSIDE, RATE, Row

import lstm_optax as lo
from lstm_optax.optimizers import OPTIMIZERS as FACTORIES

SQUARE = {"scale": "square", "units": {"initial": 2}}
CLIP = {"scale": "linear", "units": {"max_norm": 1}}

TRANSFORMS = {
    "momentum": Row(lo.momentum, {"decay": 0.9}, schedules=("decay",), **LINEAR),
    "ema": Row(lo.ema, {"decay": 0.9}, "moment", schedules=("decay",), **LINEAR),
    "damped_momentum": Row(lo.damped_momentum, {"decay": 0.9, "dampening": 0.3}, **LINEAR),
    "corrected_momentum": Row(
        lo.corrected_momentum, {"decay": 0.9, "learning_rate": 0.1}, **LINEAR
    ),
    "mean_square": Row(lo.mean_square, {"decay": 0.9, "initial": 0.1}, "moment", **SQUARE),
    "centered_mean_square": Row(
        lo.centered_mean_square, {"decay": 0.9, "initial": 0.1}, "moment", **SQUARE
    ),
    "centered_mean_square, floor": Row(
        lo.centered_mean_square, {"decay": 0.9, "floor": 0.5}, "moment", **SQUARE
    ),
    "sum_square": Row(lo.sum_square, {"initial": 0.1}, "moment", descent_rate=1.0, **SQUARE),
    "running_max": Row(
        lambda decay: lo.running_max(lo.mean_square(decay)),
        {"decay": 0.5},
        "moment",
        descent_rate=0.1,
        **SQUARE,
    ),
    "debias": Row(
        lambda decay: lo.debias(lo.ema(decay), decay), {"decay": 0.9}, "moment", **LINEAR
    ),
    "nesterov": Row(lambda decay: lo.nesterov(lo.momentum(decay)), {"decay": 0.9}, **LINEAR),
    "dozat_momentum": Row(lo.dozat_momentum, {"decay": 0.9, "psi": 0.004}, "moment", **LINEAR),
    "dozat_momentum, scheduled": Row(
        lo.dozat_momentum,
        {"decay": 0.9, "psi": 1.0},
        "moment",
        options={"scheduled_average": True},
        **LINEAR,
    ),
    "precondition": Row(
        lambda decay, eps, eps_root: lo.precondition(
            lo.ema(decay), lo.mean_square(decay), eps=eps, eps_root=eps_root
        ),
        {"decay": 0.9, "eps": 1e-3, "eps_root": 1e-6},
        scale="invariant",
        units={"eps": 1, "eps_root": 2},
    ),
    "clip_by_global_norm": Row(lo.clip_by_global_norm, {"max_norm": 1.0}, **CLIP),
    "clip_by_global_norm, zero": Row(
        lo.clip_by_global_norm, {"max_norm": 1.0}, options={"nonfinite": "zero"}, **CLIP
    ),
    "clip_by_norm_quantile": Row(
        lo.clip_by_norm_quantile,
        {"quantile": 0.5},
        options={"window": 4},
        static="window",
        **LINEAR,
    ),
    "guard": Row(
        lambda decay, max_consecutive_errors: lo.guard(
            lo.momentum(decay), max_consecutive_errors=max_consecutive_errors + 1
        ),
        {"decay": 0.9, "max_consecutive_errors": 9.0},
        **LINEAR,
    ),
    "loss_scaling": Row(  # of gradients that the scale has not multiplied
        lambda decay: lo.loss_scaling(lo.momentum(decay), initial=1.0, growth_interval=1e9),
        {"decay": 0.9},
        **LINEAR,
    ),
    "polyak_average": Row(
        lambda decay, start: lo.polyak_average(lo.momentum(decay), start=start),
        {"decay": 0.9, "start": 2.0},
        **LINEAR,
    ),
    "ema_average": Row(
        lambda decay: lo.ema_average(lo.momentum(decay), decay), {"decay": 0.9}, **LINEAR
    ),
    "triggered_average": Row(
        lambda decay: lo.triggered_average(lo.momentum(decay)), {"decay": 0.9}, **LINEAR
    ),
    "scale_by_learning_rate": Row(lo.scale_by_learning_rate, RATE, **LINEAR),
    "scale_by_rate_factor": Row(
        lambda learning_rate: optax.chain(
            lo.scale_by_learning_rate(learning_rate), lo.scale_by_rate_factor()
        ),
        RATE,
        **LINEAR,
    ),
    "keep_dtype": Row(
        lambda step_size: lo.keep_dtype(optax.scale(step_size)),
        {"step_size": 0.5},
        descent_rate=4e-3,
        **LINEAR,
    ),
}

MOMENTS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
OWN = {
    "sgd": Row(lo.sgd, RATE, **LINEAR),
    "momentum_sgd": Row(
        lo.momentum_sgd, RATE | {"momentum": 0.9}, schedules=("momentum",), **LINEAR
    ),
    "nesterov_sgd": Row(
        lo.nesterov_sgd,
        RATE | {"momentum": 0.9},
        schedules=("momentum",),
        read_ahead=("momentum",),
        **LINEAR,
    ),
    "rmsprop": Row(lo.rmsprop, RATE | {"decay": 0.9, "eps": 1e-8}, **INSIDE),
    "rmsprop_momentum": Row(
        lo.rmsprop_momentum, RATE | {"momentum": 0.9, "decay": 0.9, "eps": 1e-8}, **INSIDE
    ),
    "adam": Row(lo.adam, RATE | MOMENTS, **OUTSIDE),
    "nadam": Row(lo.nadam, RATE | MOMENTS, **OUTSIDE),
    "nadamw": Row(lo.nadamw, RATE | MOMENTS | {"weight_decay": 0.1}, static="mask", **OUTSIDE),
    "awd_sgd": Row(
        lo.awd_sgd,
        RATE | {"clip": 0.25, "weight_decay": 0.1},
        scale="linear",
        units={"clip": 1},
        static="nonmonotone",
    ),
}
OPTAX = {n: Row(f, RATE, ours=False) for n, f in FACTORIES.items() if n.startswith("optax.")}
OPTIMIZERS = OWN | OPTAX

GATE_RULES = {
    "by_gate": Row(
        lambda decay, eps: lo.by_gate(
            lo.precondition(lo.ema(decay), lo.mean_square(decay), eps=eps),
        ),
        {"decay": 0.9, "eps": 1e-3},
        tree=LSTM,
        **OUTSIDE,
    ),
    "by_gate, keys": Row(
        lambda decay, max_norm: lo.by_gate(
            {"forget": lo.momentum(decay), ("bias", "cell"): lo.clip_by_global_norm(max_norm)},
            others=lo.momentum(0.5),
        ),
        {"decay": 0.9, "max_norm": 1.0},
        tree=LSTM,
        **CLIP,
    ),
    "gate_muon": Row(
        lo.gate_muon,
        # a small rate, since Newton-Schulz multiplies the rounding of a gradient
        {"learning_rate": 0.02, "momentum": 0.9, "rms": 0.2, "b1": 0.9, "b2": 0.99, "eps": 1e-6},
        tree=LSTM,
        scale="none: Optax's Newton-Schulz adds 1e-8, in units of g",
    ),
}

OURS = TRANSFORMS | OWN | PRESETS | GATE_RULES
ALL = OURS | OPTAX

AVERAGES = {"polyak_average", "ema_average", "triggered_average"}
FIRST = {name for name in TRANSFORMS | OWN if "," not in name} - AVERAGES
"""The rules that the plain tests run in each contract; variants and averages are slow."""
SAMPLE = {"momentum", "precondition", "clip_by_global_norm", "guard", "nadam"}
"""The rules that the plain tests run in the contracts that compile most."""
