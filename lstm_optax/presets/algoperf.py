"""NadamW and gradient clipping of the AlgoPerf baselines, which took NadamW from init2winit."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import lstm_optax.transforms as tx
from lstm_optax.checks import DECAY, RATE, SIZE, check_flags
from lstm_optax.transforms.decay import decayed_weights
from lstm_optax.transforms.derivatives import safe_sqrt
from lstm_optax.transforms.dtypes import cast_like, real_only
from lstm_optax.transforms.scalars import Scalar

__all__ = ["clip_gradients", "nadamw"]


def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    debias: bool = True,
    weight_decay: Scalar = 0.0,
    weight_decay_mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Apply Nadam with Adam's bias correction, constant momentum, and decoupled weight decay.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        u = (β₁ m + (1 − β₁) g)/(1 − β₁ᵗ) / (√(ν/(1 − β₂ᵗ) + ε_root) + ε);  θ ← θ − η (u + λ θ)

    ε is added outside the square root, ε_root inside, both after the bias correction. The learning
    rate comes last and also scales the decay. The first step is (1 + β₁) η.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.
      eps_root: ε_root ≥ 0, in units of the squared gradient.
      debias: correct the bias of both averages.
      weight_decay: λ ≥ 0.
      weight_decay_mask: which leaves decay: a tree of bools that is a prefix of the parameters'
        tree, or a function of the parameters that returns one; by default all leaves decay.

    Raises:
      ValueError: a number is out of range, or the mask has a leaf that is not a bool.

    Reference: Dahl et al., 2023, arXiv:2306.07179; Choi et al., 2019, arXiv:1910.05446, table 1.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(b1=b1, b2=b2)
    SIZE.check(eps=eps, eps_root=eps_root)
    check_flags(debias=debias)
    direction, second_moment = tx.nesterov(tx.ema(b1)), tx.mean_square(b2)
    if debias:
        direction, second_moment = tx.debias(direction, b1), tx.debias(second_moment, b2)
    return optax.chain(
        tx.precondition(direction, second_moment, eps=eps, eps_root=eps_root),
        decayed_weights(weight_decay, weight_decay_mask, mask_name="weight_decay_mask"),
        tx.scale_by_learning_rate(learning_rate),
    )


@real_only
def clip_gradients(grad_clip: Scalar) -> optax.GradientTransformation:
    """Clip by the global norm, as AlgoPerf's training step does before the optimizer.

        g ← g · min(1, c / (‖g‖ + 1e-6))

    Equal to `torch.nn.utils.clip_grad_norm_`. A gradient with norm exactly c is also scaled, by
    c / (c + 1e-6).

    Args:
      grad_clip: c ≥ 0, the largest norm.

    Raises:
      ValueError: c is a negative number.

    Reference: Dahl et al., 2023, arXiv:2306.07179, the NadamW baseline.
    """
    SIZE.check(grad_clip=grad_clip)

    def clip(updates, _):
        wide = [jnp.asarray(g, jnp.promote_types(g.dtype, float)) for g in jax.tree.leaves(updates)]
        norm = safe_sqrt(sum((jnp.sum(jnp.square(g)) for g in wide), start=jnp.zeros([])))
        scale = jnp.minimum(1.0, grad_clip / (norm + 1e-6))
        return cast_like(jax.tree.map(lambda g: scale * g, updates), updates)

    return optax.stateless(clip)
