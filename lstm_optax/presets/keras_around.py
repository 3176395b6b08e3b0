"""Links of Keras' optimizers before and after the rule: unscale, clip, decay and average."""

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import COUNT, FACTOR, SHARE, SIZE, check_flags
from lstm_optax.presets.links import (
    clip_each_by_norm,
    clip_together_by_norm,
    decay_at_rate,
    overwrite_parameters,
)
from lstm_optax.transforms import keep_dtype
from lstm_optax.transforms.averaging import average_parameters
from lstm_optax.transforms.scalars import Scalar


def links_before(
    clipnorm: Scalar | None,
    clipvalue: Scalar | None,
    global_clipnorm: Scalar | None,
    loss_scale_factor: Scalar | None,
) -> list[optax.GradientTransformation]:
    """Return the links before the rule: division by the loss scale, and clipping.

    Raises:
      ValueError: a number is out of range, or more than one clip argument is set.
    """
    clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
    given = {name: value for name, value in clips.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"{', '.join(given)} are set, but at most one may be")
    SIZE.check(**given)
    links = []
    if loss_scale_factor is not None:
        FACTOR.check(loss_scale_factor=loss_scale_factor)
        links.append(_divide_by(loss_scale_factor))
    if clipnorm is not None:
        links.append(clip_each_by_norm(clipnorm))
    if clipvalue is not None:
        links.append(_clip_entries(clipvalue))
    if global_clipnorm is not None:
        links.append(clip_together_by_norm(global_clipnorm))
    return links


def _divide_by(scale: Scalar) -> optax.GradientTransformation:
    return keep_dtype(optax.stateless(lambda u, _: jax.tree.map(lambda g: g / scale, u)))


def _clip_entries(value: Scalar) -> optax.GradientTransformation:
    limit = jnp.where(jnp.asarray(value) > 0, value, jnp.inf)  # 0 disables clipping
    clip = optax.stateless(lambda u, _: jax.tree.map(lambda g: jnp.clip(g, -limit, limit), u))
    return keep_dtype(clip)


def links_after(
    learning_rate: optax.ScalarOrSchedule, weight_decay: Scalar | None
) -> list[optax.GradientTransformation]:
    """Return the links after the rule: weight decay, unless it is None."""
    return [] if weight_decay is None else [decay_at_rate(learning_rate, weight_decay)]


def with_average(
    rule: optax.GradientTransformationExtraArgs,
    use_ema: bool,
    ema_momentum: Scalar,
    ema_overwrite_frequency: int | None,
) -> optax.GradientTransformationExtraArgs:
    """Return the rule, inside an average of the parameters if `use_ema` is set.

    Raises:
      ValueError: an argument is out of range.
    """
    check_flags(use_ema=use_ema)
    SHARE.check(ema_momentum=ema_momentum)
    if ema_overwrite_frequency is not None:
        COUNT.check(ema_overwrite_frequency=ema_overwrite_frequency)
    if not use_ema:
        return rule
    average = average_parameters(rule, lambda count: jnp.where(count == 0, 1.0, 1 - ema_momentum))
    if ema_overwrite_frequency is None:
        return average
    return overwrite_parameters(average, ema_overwrite_frequency)
