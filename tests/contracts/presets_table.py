"""The presets of the table of rules."""

from rows import INSIDE, LINEAR, OUTSIDE, RATE, Row

from lstm_optax.presets import algoperf, dozat, graves, hinton, sutskever, tf1
from lstm_optax.presets import keras as k
from lstm_optax.presets import torch as t

LR = {"lr": 0.1}
COUPLED = {"scale": "invariant", "units": {"eps": 1, "weight_decay": 1}}  # λ θ joins the gradient
EPSILON = {"scale": "invariant", "units": {"epsilon": 1}}
FROM_ONE = {"scale": "none: ν starts at 1, in units of g²", "units": {"epsilon": 2}}


def _betas(make):
    """The preset with its pair of betas as two numbers."""

    def build(b1, b2, lr, eps, weight_decay, amsgrad=False, maximize=False):
        return make(lr, (b1, b2), eps, weight_decay, amsgrad, maximize=maximize)

    return build


def torch_nadam(
    b1, b2, lr, eps, weight_decay, momentum_decay, decoupled_weight_decay=False, maximize=False
):
    """NAdam with its pair of betas as two numbers."""
    return t.NAdam(
        lr,
        (b1, b2),
        eps,
        weight_decay,
        momentum_decay,
        decoupled_weight_decay,
        maximize=maximize,
    )


MOMENTS = {"b1": 0.9, "b2": 0.99} | LR | {"eps": 1e-8, "weight_decay": 0.1}
TORCH = {
    "torch.SGD": Row(
        t.SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1} | LR, **LINEAR
    ),
    "torch.SGD, nesterov": Row(
        t.SGD,
        {"momentum": 0.9, "weight_decay": 0.1} | LR,
        options={"nesterov": True, "maximize": True},
        not_zero=("momentum",),
        **LINEAR,
    ),
    "torch.RMSprop": Row(
        t.RMSprop, {"alpha": 0.9, "momentum": 0.9, "eps": 1e-8, "weight_decay": 0.1} | LR, **COUPLED
    ),
    "torch.RMSprop, centered": Row(
        t.RMSprop,
        {"alpha": 0.9, "momentum": 0.9, "eps": 1e-3} | LR,
        options={"centered": True},
        centered=True,
        **OUTSIDE,
    ),
    "torch.NAdam": Row(torch_nadam, MOMENTS | {"momentum_decay": 0.004}, **COUPLED),
    "torch.NAdam, decoupled": Row(
        torch_nadam,
        MOMENTS | {"momentum_decay": 0.1},
        options={"decoupled_weight_decay": True, "maximize": True},
        **OUTSIDE,
    ),
    "torch.Adam": Row(_betas(t.Adam), MOMENTS, **COUPLED),
    "torch.Adam, amsgrad": Row(_betas(t.Adam), MOMENTS, options={"amsgrad": True}, **COUPLED),
    "torch.AdamW": Row(_betas(t.AdamW), MOMENTS, options={"maximize": True}, **OUTSIDE),
    "torch.ASGD": Row(
        t.ASGD,
        {"lambd": 0.1, "alpha": 0.75, "t0": 2.0, "weight_decay": 0.1} | LR,
        rate_is_late=True,
        **LINEAR,
    ),
}
BETAS = {"beta_1": 0.9, "beta_2": 0.99} | RATE | {"epsilon": 1e-7}
EMA = {"use_ema": True, "ema_overwrite_frequency": 3}
KERAS = {
    "keras.SGD": Row(
        k.SGD,
        {"momentum": 0.9, "ema_momentum": 0.9, "weight_decay": 0.1} | RATE,
        options=EMA,
        **LINEAR,
    ),
    "keras.SGD, nesterov": Row(
        k.SGD,
        {"momentum": 0.9, "clipnorm": 0.5} | RATE,
        options={"nesterov": True},
        scale="linear",
        units={"clipnorm": 1},
        by_leaf=True,  # clips each leaf by its own norm
    ),
    "keras.RMSprop": Row(
        k.RMSprop,
        {"rho": 0.9, "momentum": 0.9, "epsilon": 1e-7, "global_clipnorm": 1.0} | RATE,
        scale="invariant",
        units={"epsilon": 2, "global_clipnorm": 1},
    ),
    "keras.RMSprop, centered": Row(
        k.RMSprop,
        {"rho": 0.9, "momentum": 0.9, "epsilon": 1e-3, "clipvalue": 0.5} | RATE,
        options={"centered": True},
        scale="invariant",
        units={"epsilon": 2, "clipvalue": 1},
        centered=True,
    ),
    "keras.Nadam": Row(k.Nadam, BETAS | {"weight_decay": 0.1}, **EPSILON),
    "keras.Adam": Row(
        k.Adam, BETAS | {"loss_scale_factor": 8.0}, **EPSILON, not_zero=("loss_scale_factor",)
    ),
    "keras.Adam, amsgrad": Row(
        k.Adam, BETAS | {"weight_decay": 0.1}, options={"amsgrad": True}, **EPSILON
    ),
}
NADAM = {"mu": 0.9, "nu": 0.99} | RATE | {"eps": 1e-8}
PAPERS = {
    "tf1.RMSPropOptimizer": Row(
        tf1.RMSPropOptimizer,
        {"decay": 0.9, "momentum": 0.9, "epsilon": 1e-10} | RATE,
        **FROM_ONE,
    ),
    "tf1.RMSPropOptimizer, centered": Row(
        tf1.RMSPropOptimizer,
        {"decay": 0.9, "momentum": 0.9} | RATE,
        options={"centered": True},
        **FROM_ONE,
    ),
    "tf1.MomentumOptimizer": Row(tf1.MomentumOptimizer, {"momentum": 0.9} | RATE, **LINEAR),
    "tf1.MomentumOptimizer, nesterov": Row(
        tf1.MomentumOptimizer, {"momentum": 0.9} | RATE, options={"use_nesterov": True}, **LINEAR
    ),
    "tf1.AdamOptimizer": Row(
        tf1.AdamOptimizer, {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8} | RATE, **EPSILON
    ),
    "graves.rmsprop": Row(
        graves.rmsprop,
        {"decay": 0.9, "momentum": 0.9, "eps": 1e-4} | RATE,
        centered=True,
        **INSIDE,
    ),
    "hinton.rmsprop": Row(hinton.rmsprop, {"decay": 0.9} | RATE, scale="invariant"),
    "dozat.nadam_2015": Row(dozat.nadam_2015, NADAM, **OUTSIDE),
    "dozat.nadam_2016": Row(dozat.nadam_2016, NADAM, **OUTSIDE),
    "algoperf.nadamw": Row(
        algoperf.nadamw,
        {"b1": 0.9, "b2": 0.99, "weight_decay": 0.1} | RATE | {"eps": 1e-8, "eps_root": 1e-8},
        scale="invariant",
        units={"eps": 1, "eps_root": 2},
    ),
    "algoperf.nadamw, biased": Row(
        algoperf.nadamw,
        {"b1": 0.9, "b2": 0.99} | RATE | {"eps": 1e-8},
        options={"debias": False},
        **OUTSIDE,
    ),
    "algoperf.clip_gradients": Row(
        algoperf.clip_gradients,
        {"grad_clip": 1.0},
        scale="none: its source adds 1e-6, in units of g",
    ),
    "sutskever.classical_momentum": Row(
        sutskever.classical_momentum, {"mu_max": 0.4} | RATE, **LINEAR
    ),
    "sutskever.nesterov_momentum": Row(
        sutskever.nesterov_momentum, {"mu_max": 0.4} | RATE, **LINEAR
    ),
}
PRESETS = TORCH | KERAS | PAPERS
