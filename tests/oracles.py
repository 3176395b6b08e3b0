"""NumPy float64 twins of every rule, written from the published formulas, one loop over time each.

Gradients and results are [steps, n]; row t − 1 is step t. The optimizers return updates, which are
added to the parameters, and are written out in full rather than composed of the estimators above
them, so that they also judge the composition. A quotient is 0 where its denominator is 0.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Decay = float | Callable[[int], float]


def momentum(gradients: ArrayLike, decay: Decay) -> Array:
    """Heavy ball, a sum: μ ← β μ + g, where a schedule β reads the count 0 first (Polyak 1964)."""
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    mu = np.zeros_like(gradients[0])
    for count, g in enumerate(gradients):
        mu = _at(decay, count) * mu + g
        outputs[count] = mu
    return outputs


def ema(gradients: ArrayLike, decay: Decay) -> Array:
    """Exponential average: μ ← β μ + (1 − β) g, where a schedule β reads the count 0 first."""
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    mu = np.zeros_like(gradients[0])
    for count, g in enumerate(gradients):
        beta = _at(decay, count)
        mu = beta * mu + (1.0 - beta) * g
        outputs[count] = mu
    return outputs


def damped_momentum(gradients: ArrayLike, decay: float, dampening: float) -> Array:
    """PyTorch's dampened momentum: μ₁ = g₁, then μ ← β μ + (1 − d) g."""
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    mu = np.zeros_like(gradients[0])
    for count, g in enumerate(gradients):
        if count == 0:
            mu = g.copy()
        else:
            mu = decay * mu + (1.0 - dampening) * g
        outputs[count] = mu
    return outputs


def corrected_momentum(updates: ArrayLike, decay: float, learning_rates: ArrayLike) -> Array:
    """Goyal's corrected velocity: v ← β (ηₜ/ηₜ₋₁) v + u, v₀ = 0 (arXiv:1706.02677)."""
    updates, rates = _float64(updates), _float64(learning_rates)
    outputs = np.zeros_like(updates)
    velocity = updates[0].copy()
    outputs[0] = velocity
    for t in range(1, len(updates)):
        velocity = decay * (rates[t] / rates[t - 1]) * velocity + updates[t]
        outputs[t] = velocity
    return outputs


def mean_square(gradients: ArrayLike, decay: float, initial: float = 0.0) -> Array:
    """Average of the squares: ν ← ρ ν + (1 − ρ) g², ν₀ = initial (Tieleman & Hinton 2012)."""
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    nu = np.full_like(gradients[0], initial)
    for count, g in enumerate(gradients):
        nu = decay * nu + (1.0 - decay) * g * g
        outputs[count] = nu
    return outputs


def centered_mean_square(gradients: ArrayLike, decay: float, initial: float = 0.0) -> Array:
    """Variance: n ← ρ n + (1 − ρ) g², m ← ρ m + (1 − ρ) g, n − m² (Graves 2013, arXiv:1308.0850).

    n starts at `initial` and m at 0; the difference can round to a tiny negative number.
    """
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    n = np.full_like(gradients[0], initial)
    m = np.zeros_like(gradients[0])
    for count, g in enumerate(gradients):
        n = decay * n + (1.0 - decay) * g * g
        m = decay * m + (1.0 - decay) * g
        outputs[count] = n - m * m
    return outputs


def sum_square(gradients: ArrayLike, initial: float) -> Array:
    """Sum of the squares: ν ← ν + g², ν₀ = initial (Adagrad, Duchi, Hazan & Singer 2011)."""
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    nu = np.full_like(gradients[0], initial)
    for count, g in enumerate(gradients):
        nu = nu + g * g
        outputs[count] = nu
    return outputs


def running_max(values: ArrayLike) -> Array:
    """Largest value so far, from zero: ν̂ ← max(ν̂, ν), ν̂₀ = 0 (AMSGrad, arXiv:1904.09237)."""
    values = _float64(values)
    outputs = np.zeros_like(values)
    largest = np.zeros_like(values[0])
    for count, value in enumerate(values):
        largest = np.maximum(largest, value)
        outputs[count] = largest
    return outputs


def debias(values: ArrayLike, decay: float) -> Array:
    """Correction of a start at zero: vₜ / (1 − βᵗ), t = 1, 2, … (arXiv:1412.6980)."""
    values = _float64(values)
    outputs = np.zeros_like(values)
    for t, value in enumerate(values, start=1):
        outputs[t - 1] = value / (1.0 - decay**t)
    return outputs


def nesterov_momentum(gradients: ArrayLike, decay: Decay) -> Array:
    """Heavy ball pushed twice: μ ← βₜ μ + g is kept, βₜ₊₁ μ + g is given (Sutskever 2013)."""
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    mu = np.zeros_like(gradients[0])
    for count, g in enumerate(gradients):
        mu = _at(decay, count) * mu + g
        outputs[count] = _at(decay, count + 1) * mu + g
    return outputs


def nesterov_ema(gradients: ArrayLike, decay: Decay) -> Array:
    """Average pushed twice: μ ← βₜ μ + (1 − βₜ) g is kept, βₜ₊₁ μ + (1 − βₜ₊₁) g is given."""
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    mu = np.zeros_like(gradients[0])
    for count, g in enumerate(gradients):
        now, following = _at(decay, count), _at(decay, count + 1)
        mu = now * mu + (1.0 - now) * g
        outputs[count] = following * mu + (1.0 - following) * g
    return outputs


def dozat_momentum(
    gradients: ArrayLike, decay: float, psi: float, scheduled_average: bool = False
) -> Array:
    """Nadam's direction: m̂ = μₜ₊₁ m/(1 − Pₜ₊₁) + (1 − μₜ) g/(1 − Pₜ), Pₜ = Πμᵢ (Dozat 2016).

    μₜ = β (1 − ½·0.96^(ψt)), which is β for ψ = ∞; m averages with β, or with μₜ when
    `scheduled_average`.
    """
    gradients = _float64(gradients)
    outputs = np.zeros_like(gradients)
    m = np.zeros_like(gradients[0])
    product = 1.0
    for t, g in enumerate(gradients, start=1):
        mu_now = decay * (1.0 - 0.5 * 0.96 ** (psi * t))
        mu_next = decay * (1.0 - 0.5 * 0.96 ** (psi * (t + 1)))
        product = product * mu_now
        average = mu_now if scheduled_average else decay
        m = average * m + (1.0 - average) * g
        ahead = mu_next * m / (1.0 - product * mu_next)
        outputs[t - 1] = ahead + (1.0 - mu_now) * g / (1.0 - product)
    return outputs


def precondition(
    directions: ArrayLike, second_moments: ArrayLike, eps: float = 0.0, eps_root: float = 0.0
) -> Array:
    """Direction over root of size: d / (√(ν + ε_root) + ε), and 0 where that divides by 0."""
    directions, second_moments = _float64(directions), _float64(second_moments)
    outputs = np.zeros_like(directions)
    for count, (direction, nu) in enumerate(zip(directions, second_moments, strict=True)):
        outputs[count] = _divide(direction, np.sqrt(nu + eps_root) + eps)
    return outputs


def sgd(gradients: ArrayLike, learning_rates: ArrayLike) -> Array:
    """Gradient descent: θ ← θ − η g."""
    gradients, learning_rates = _float64(gradients), _float64(learning_rates)
    updates = np.zeros_like(gradients)
    for count, (g, lr) in enumerate(zip(gradients, learning_rates, strict=True)):
        updates[count] = -lr * g
    return updates


def momentum_sgd(gradients: ArrayLike, learning_rates: ArrayLike, momentum: float) -> Array:
    """Momentum with the learning rate inside the velocity: v ← γ v + η g, θ ← θ − v."""
    gradients, learning_rates = _float64(gradients), _float64(learning_rates)
    updates = np.zeros_like(gradients)
    velocity = np.zeros_like(gradients[0])
    for count, (g, lr) in enumerate(zip(gradients, learning_rates, strict=True)):
        velocity = momentum * velocity + lr * g
        updates[count] = -velocity
    return updates


def nesterov_sgd(gradients: ArrayLike, learning_rates: ArrayLike, momentum: float) -> Array:
    """Nesterov's momentum as PyTorch has it: b ← γ b + g, θ ← θ − η (g + γ b)."""
    gradients, learning_rates = _float64(gradients), _float64(learning_rates)
    updates = np.zeros_like(gradients)
    buffer = np.zeros_like(gradients[0])
    for count, (g, lr) in enumerate(zip(gradients, learning_rates, strict=True)):
        buffer = momentum * buffer + g
        updates[count] = -lr * (g + momentum * buffer)
    return updates


def rmsprop(gradients: ArrayLike, learning_rates: ArrayLike, decay: float, eps: float) -> Array:
    """RMSprop with ε inside the root: ν ← ρ ν + (1 − ρ) g², θ ← θ − η g/√(ν + ε)."""
    gradients, learning_rates = _float64(gradients), _float64(learning_rates)
    updates = np.zeros_like(gradients)
    nu = np.zeros_like(gradients[0])
    for count, (g, lr) in enumerate(zip(gradients, learning_rates, strict=True)):
        nu = decay * nu + (1.0 - decay) * g**2
        updates[count] = -lr * _divide(g, np.sqrt(nu + eps))
    return updates


def rmsprop_momentum(
    gradients: ArrayLike, learning_rates: ArrayLike, momentum: float, decay: float, eps: float
) -> Array:
    """Average, then divide: ν ← γν + (1 − γ)g², m ← βm + (1 − β)g, θ ← θ − η m/√(ν + ε)."""
    gradients, learning_rates = _float64(gradients), _float64(learning_rates)
    updates = np.zeros_like(gradients)
    m = np.zeros_like(gradients[0])
    nu = np.zeros_like(gradients[0])
    for count, (g, lr) in enumerate(zip(gradients, learning_rates, strict=True)):
        nu = decay * nu + (1.0 - decay) * g**2
        m = momentum * m + (1.0 - momentum) * g
        updates[count] = -lr * _divide(m, np.sqrt(nu + eps))
    return updates


def adam(
    gradients: ArrayLike, learning_rates: ArrayLike, b1: float, b2: float, eps: float
) -> Array:
    """Adam: θ ← θ − η m̂/(√v̂ + ε), m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) (arXiv:1412.6980)."""
    gradients, learning_rates = _float64(gradients), _float64(learning_rates)
    updates = np.zeros_like(gradients)
    m = np.zeros_like(gradients[0])
    v = np.zeros_like(gradients[0])
    for t, (g, lr) in enumerate(zip(gradients, learning_rates, strict=True), start=1):
        m = b1 * m + (1.0 - b1) * g
        v = b2 * v + (1.0 - b2) * g**2
        m_hat = m / (1.0 - b1**t)
        v_hat = v / (1.0 - b2**t)
        updates[t - 1] = -lr * _divide(m_hat, np.sqrt(v_hat) + eps)
    return updates


def nadam(
    gradients: ArrayLike, learning_rates: ArrayLike, b1: float, b2: float, eps: float
) -> Array:
    """Textbook Nadam: θ ← θ − η m̂/(√v̂ + ε), m̂ = (β₁ m + (1 − β₁) g)/(1 − β₁ᵗ)."""
    gradients, learning_rates = _float64(gradients), _float64(learning_rates)
    updates = np.zeros_like(gradients)
    m = np.zeros_like(gradients[0])
    v = np.zeros_like(gradients[0])
    for t, (g, lr) in enumerate(zip(gradients, learning_rates, strict=True), start=1):
        m = b1 * m + (1.0 - b1) * g
        v = b2 * v + (1.0 - b2) * g**2
        m_hat = (b1 * m + (1.0 - b1) * g) / (1.0 - b1**t)
        v_hat = v / (1.0 - b2**t)
        updates[t - 1] = -lr * _divide(m_hat, np.sqrt(v_hat) + eps)
    return updates


def nadamw(
    gradients: ArrayLike,
    learning_rates: ArrayLike,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    params0: ArrayLike,
) -> Array:
    """Nadam with decoupled decay: θ ← θ − η (m̂/(√v̂ + ε) + λ θ), from θ₀ (arXiv:1711.05101)."""
    gradients, learning_rates = _float64(gradients), _float64(learning_rates)
    updates = np.zeros_like(gradients)
    params = _float64(params0).copy()
    m = np.zeros_like(gradients[0])
    v = np.zeros_like(gradients[0])
    for t, (g, lr) in enumerate(zip(gradients, learning_rates, strict=True), start=1):
        m = b1 * m + (1.0 - b1) * g
        v = b2 * v + (1.0 - b2) * g**2
        m_hat = (b1 * m + (1.0 - b1) * g) / (1.0 - b1**t)
        v_hat = v / (1.0 - b2**t)
        updates[t - 1] = -lr * (_divide(m_hat, np.sqrt(v_hat) + eps) + weight_decay * params)
        params = params + updates[t - 1]
    return updates


def awd_sgd(
    gradients: ArrayLike,
    learning_rates: ArrayLike,
    clip: float,
    weight_decay: float,
    params: ArrayLike,
) -> Array:
    """Clipped by the norm, then decayed, then SGD: θ ← θ − η (g min(1, c/‖g‖) + λ θ)."""
    gradients, rates, theta = _float64(gradients), _float64(learning_rates), _float64(params)
    outputs = np.zeros_like(gradients)
    for t, g in enumerate(gradients):
        norm = np.sqrt(np.sum(g * g))
        scale = clip / norm if norm > clip else 1.0
        outputs[t] = -rates[t] * (scale * g + weight_decay * theta)
        theta = theta + outputs[t]
    return outputs


def polyak_average(params: ArrayLike, start: int) -> Array:
    """The mean of the rows after the first `start`; before, the row itself."""
    params = _float64(params)
    means = [params[start : t + 1].mean(0) if t >= start else params[t] for t in range(len(params))]
    return np.stack(means)


def ema_average(params: ArrayLike, decay: float) -> Array:
    """The mean of the rows so far under the weights decayᵗ⁻ˢ of row s."""
    params = _float64(params)
    outputs = np.zeros_like(params)
    for t in range(len(params)):
        weights = decay ** np.arange(t, -1, -1.0)
        outputs[t] = weights @ params[: t + 1] / weights.sum()
    return outputs


def asgd_average(params: ArrayLike) -> Array:
    """PyTorch's ASGD with t₀ = 0: ax ← ax + mu (p − ax), mu 1, 1, 1/2, 1/3, … at the steps."""
    params = _float64(params)
    outputs, ax, mu = np.zeros_like(params), np.zeros_like(params[0]), 1.0
    for t, p in enumerate(params):
        ax = ax + mu * (p - ax)
        mu = 1.0 / max(1, t + 1)
        outputs[t] = ax
    return outputs


def nonmonotone_trigger(losses: list[float], n: int) -> list[bool]:
    """Whether averaging is on after each validation, as AWD-LSTM's main.py decides it."""
    earlier, on, outputs = [], False, []
    for loss in losses:
        if not on and len(earlier) > n and loss > min(earlier[:-n]):
            on = True
        earlier.append(loss)
        outputs.append(on)
    return outputs


def _float64(values: ArrayLike) -> Array:
    """The values as a float64 array."""
    return np.asarray(values, dtype=np.float64)


def _at(decay: Decay, count: int) -> float:
    """The decay at a count: decay(count) for a schedule, decay for a number."""
    return float(decay(count)) if callable(decay) else float(decay)


def _divide(numerator: Array, denominator: Array) -> Array:
    """Quotient a / b, and 0 where b = 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
