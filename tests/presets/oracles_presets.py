"""NumPy float64 twins of the presets whose source cannot be installed, from its pseudo-code.

Each takes the parameters to start from, the gradients [steps, *shape], the rates [steps] and the
options of its source, and returns the parameters before the first step and after each. A quotient
is 0 where its denominator is 0.
"""

import numpy as np


def tf1_RMSPropOptimizer(
    theta, gradients, rates, decay=0.9, momentum=0.0, epsilon=1e-10, centered=False
):
    """TensorFlow's kernels ApplyRMSProp and ApplyCenteredRMSProp, their slots of ones and zeros."""
    path, ms, mg, mom = [theta], np.ones_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    for g, lr in zip(gradients, rates, strict=True):
        ms = ms + (g * g - ms) * (1 - decay)
        mg = mg + (g - mg) * (1 - decay)
        denominator = ms - mg * mg + epsilon if centered else ms + epsilon
        mom = mom * momentum + g * lr / np.sqrt(denominator)
        theta = theta - mom
        path.append(theta)
    return np.stack(path)


def tf1_MomentumOptimizer(theta, gradients, rates, momentum, use_nesterov=False):
    """TensorFlow's kernel ApplyMomentum."""
    path, accum = [theta], np.zeros_like(theta)
    for g, lr in zip(gradients, rates, strict=True):
        accum = accum * momentum + g
        theta = theta - (g * lr + accum * momentum * lr if use_nesterov else accum * lr)
        path.append(theta)
    return np.stack(path)


def tf1_AdamOptimizer(theta, gradients, rates, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """TensorFlow's kernel ApplyAdam, with the powers of the betas as its variables hold them."""
    path, m, v = [theta], np.zeros_like(theta), np.zeros_like(theta)
    beta1_power, beta2_power = beta1, beta2
    for g, lr in zip(gradients, rates, strict=True):
        alpha = lr * np.sqrt(1 - beta2_power) / (1 - beta1_power)
        m = m + (g - m) * (1 - beta1)
        v = v + (g * g - v) * (1 - beta2)
        theta = theta - m * alpha / (np.sqrt(v) + epsilon)
        beta1_power, beta2_power = beta1_power * beta1, beta2_power * beta2
        path.append(theta)
    return np.stack(path)


def graves_rmsprop(theta, gradients, rates, decay=0.95, momentum=0.9, eps=1e-4):
    """Graves 2013, equations 38 to 45."""
    path = [theta]
    n, mean, delta = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    for g, lr in zip(gradients, rates, strict=True):
        n = decay * n + (1 - decay) * g**2
        mean = decay * mean + (1 - decay) * g
        delta = momentum * delta - lr * g / np.sqrt(n - mean**2 + eps)
        theta = theta + delta
        path.append(theta)
    return np.stack(path)


def hinton_rmsprop(theta, gradients, rates, decay=0.9):
    """Lecture 6e: MeanSquare(w, t) = .9 MeanSquare(w, t−1) + .1 (∂E/∂w)², divided by its root."""
    path, mean_square = [theta], np.zeros_like(theta)
    for g, lr in zip(gradients, rates, strict=True):
        mean_square = decay * mean_square + (1 - decay) * g**2
        root = np.sqrt(mean_square)
        theta = theta - lr * np.where(root == 0, 0, g / np.where(root == 0, 1, root))
        path.append(theta)
    return np.stack(path)


def _dozat_mu(mu, t):
    return mu * (1 - 0.5 * 0.96 ** (t / 250))


def dozat_nadam_2015(theta, gradients, rates, mu=0.9, nu=0.999, eps=1e-8):
    """The algorithm of the report: averaged with μ."""
    path, m, n, product = [theta], np.zeros_like(theta), np.zeros_like(theta), 1.0
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        now, after = _dozat_mu(mu, t), _dozat_mu(mu, t + 1)
        product *= now
        g_hat = g / (1 - product)
        m = mu * m + (1 - mu) * g
        m_hat = m / (1 - product * after)
        n = nu * n + (1 - nu) * g**2
        n_hat = n / (1 - nu**t)
        m_bar = (1 - now) * g_hat + after * m_hat
        theta = theta - lr * m_bar / (np.sqrt(n_hat) + eps)
        path.append(theta)
    return np.stack(path)


def dozat_nadam_2016(theta, gradients, rates, mu=0.9, nu=0.999, eps=1e-8):
    """Algorithm 2 of the workshop paper: averaged with μₜ, and ν in the numerator of n̂."""
    path, m, n, product = [theta], np.zeros_like(theta), np.zeros_like(theta), 1.0
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        now, after = _dozat_mu(mu, t), _dozat_mu(mu, t + 1)
        product *= now
        m = now * m + (1 - now) * g
        n = nu * n + (1 - nu) * g**2
        m_hat = after * m / (1 - product * after) + (1 - now) * g / (1 - product)
        n_hat = nu * n / (1 - nu**t)
        theta = theta - lr / (np.sqrt(n_hat) + eps) * m_hat
        path.append(theta)
    return np.stack(path)


def algoperf_nadamw(
    theta,
    gradients,
    rates,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    debias=True,
    weight_decay=0.0,
):
    """init2winit's scale_by_nadam, decayed weights, and the rate."""
    path, mu, nu = [theta], np.zeros_like(theta), np.zeros_like(theta)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        mu = (1 - b1) * g + b1 * mu
        nu = (1 - b2) * g**2 + b2 * nu
        mu_hat, nu_hat = (1 - b1) * g + b1 * mu, nu
        if debias:
            mu_hat, nu_hat = mu_hat / (1 - b1**t), nu_hat / (1 - b2**t)
        theta = theta - lr * (mu_hat / (np.sqrt(nu_hat + eps_root) + eps) + weight_decay * theta)
        path.append(theta)
    return np.stack(path)


def _sutskever_mu(mu_max, t):
    return min(1 - 2 ** (-1 - np.log2(t // 250 + 1)), mu_max)


def sutskever_classical_momentum(theta, gradients, rates, mu_max=0.99):
    """Equations 1 and 2."""
    path, v = [theta], np.zeros_like(theta)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True)):
        v = _sutskever_mu(mu_max, t) * v - lr * g
        theta = theta + v
        path.append(theta)
    return np.stack(path)


def sutskever_nesterov_momentum(theta, gradients, rates, mu_max=0.99, at="stored"):
    """Equations 3 and 4; the path of θ + μₜ v, where the gradient is taken, or of θ."""
    path, v = [theta], np.zeros_like(theta)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True)):
        v = _sutskever_mu(mu_max, t) * v - lr * g
        theta = theta + v
        path.append(theta + _sutskever_mu(mu_max, t + 1) * v if at == "stored" else theta)
    return np.stack(path)
