"""NumPy float64 oracle of the LSTM: forward pass and back-propagation through time, as loops.

Gate order i, f, g, o. Shapes: kernel_ih [I, 4H], kernel_hh [H, 4H], bias [4H], x [T, B, I], h and
c [B, H], outputs [T, B, H]. All functions have three options:

- `seq_lengths` [B]: at steps t ≥ length, the carry of a row is frozen (a reset at t does not zero
  it), its output is 0 and its input is not read;
- `resets` [T, B]: an episode starts at t, so no carry crosses the boundary between t − 1 and t;
  forward in time, h and c are zeroed before step t if resets[t];
- `reverse`: time runs from T − 1 to 0, with every output at its own t. The same boundaries are
  crossed in the other direction, so h and c are zeroed before step t if resets[t + 1]; resets[0]
  and resets in the padding have no effect.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Parameters = tuple[ArrayLike, ArrayLike, ArrayLike]
Carry = tuple[ArrayLike, ArrayLike]


class _Step(NamedTuple):
    """Values of one time step for the backward pass."""

    t: int
    live: Mask  # [B, 1]
    zeroed: Mask  # [B, 1]
    x: Array  # [B, I], 0 where frozen
    h_start: Array  # [B, H], after a reset
    c_start: Array  # [B, H], after a reset
    i: Array  # [B, H]
    f: Array  # [B, H]
    g: Array  # [B, H]
    o: Array  # [B, H]
    tanh_c: Array  # [B, H]


def forward(
    kernel_ih: ArrayLike,
    kernel_hh: ArrayLike,
    bias: ArrayLike,
    x: ArrayLike,
    h0: ArrayLike,
    c0: ArrayLike,
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
) -> tuple[Array, Array, Array]:
    """Return the outputs and the last carry.

    z = xW + hU + b;  c ← σ(f)·c + σ(i)·tanh(g);  h ← σ(o)·tanh(c)
    """
    outputs, h, c, _ = _run(
        _float64(kernel_ih),
        _float64(kernel_hh),
        _float64(bias),
        _float64(x),
        _float64(h0),
        _float64(c0),
        seq_lengths,
        resets,
        reverse,
    )
    return outputs, h, c


def gradients(
    kernel_ih: ArrayLike,
    kernel_hh: ArrayLike,
    bias: ArrayLike,
    x: ArrayLike,
    h0: ArrayLike,
    c0: ArrayLike,
    d_outputs: ArrayLike,
    d_h: ArrayLike,
    d_c: ArrayLike,
    *,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    cut: Callable[[int, str, Array], Array] = lambda t, name, g: g,
) -> dict[str, Array]:
    """Return the gradients of ⟨d_outputs, outputs⟩ + ⟨d_h, h⟩ + ⟨d_c, c⟩ for `forward`'s arguments.

    `cut` gets the whole gradient of "h", "c" and "gates" [B, 4H] at each step t, and returns its
    replacement.
    """
    kernel_ih, kernel_hh, bias = _float64(kernel_ih), _float64(kernel_hh), _float64(bias)
    x, h0, c0 = _float64(x), _float64(h0), _float64(c0)
    d_outputs, d_h, d_c = _float64(d_outputs), _float64(d_h), _float64(d_c)
    *_, tape = _run(kernel_ih, kernel_hh, bias, x, h0, c0, seq_lengths, resets, reverse)

    d_kernel_ih, d_kernel_hh = np.zeros_like(kernel_ih), np.zeros_like(kernel_hh)
    d_bias, d_x = np.zeros_like(bias), np.zeros_like(x)
    for step in reversed(tape):
        # A frozen row passes the gradient of its carry unchanged and computes nothing.
        dh = np.where(step.live, d_h + d_outputs[step.t], 0.0)
        dh = cut(step.t, "h", dh)
        dc = np.where(step.live, d_c, 0.0) + dh * step.o * (1.0 - step.tanh_c**2)
        dc = cut(step.t, "c", dc)
        di = dc * step.g * step.i * (1.0 - step.i)
        df = dc * step.c_start * step.f * (1.0 - step.f)
        dg = dc * step.i * (1.0 - step.g**2)
        do = dh * step.tanh_c * step.o * (1.0 - step.o)
        dz = cut(step.t, "gates", np.concatenate([di, df, dg, do], axis=1))

        d_kernel_ih += step.x.T @ dz
        d_kernel_hh += step.h_start.T @ dz
        d_bias += dz.sum(axis=0)
        d_x[step.t] = dz @ kernel_ih.T

        dh_before = np.where(step.zeroed, 0.0, dz @ kernel_hh.T)
        dc_before = np.where(step.zeroed, 0.0, dc * step.f)
        d_h = np.where(step.live, dh_before, d_h)
        d_c = np.where(step.live, dc_before, d_c)
    return {
        "kernel_ih": d_kernel_ih,
        "kernel_hh": d_kernel_hh,
        "bias": d_bias,
        "x": d_x,
        "h0": d_h,
        "c0": d_c,
    }


def stacked(
    layers: list[dict[str, Parameters]],
    x: ArrayLike,
    carries: list[dict[str, Carry]],
    *,
    bidirectional: bool = False,
    seq_lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
) -> tuple[Array, list[dict[str, tuple[Array, Array]]]]:
    """Run a stack of layers; the output of a bidirectional layer is [forward ‖ backward].

    Each layer is {"forward": (kernel_ih, kernel_hh, bias)}, with "backward" in addition if
    bidirectional. Carries are (h, c) in the same structure, also the last carries returned.
    """
    directions = ("forward", "backward") if bidirectional else ("forward",)
    outputs = _float64(x)
    last_carries = []
    for parameters, carry in zip(layers, carries, strict=True):
        parts, last = [], {}
        for direction in directions:
            part, h, c = forward(
                *parameters[direction],
                outputs,
                *carry[direction],
                seq_lengths=seq_lengths,
                resets=resets,
                reverse=direction == "backward",
            )
            parts.append(part)
            last[direction] = (h, c)
        outputs = np.concatenate(parts, axis=2)
        last_carries.append(last)
    return outputs, last_carries


def _run(
    kernel_ih: Array,
    kernel_hh: Array,
    bias: Array,
    x: Array,
    h: Array,
    c: Array,
    seq_lengths: ArrayLike | None,
    resets: ArrayLike | None,
    reverse: bool,
) -> tuple[Array, Array, Array, list[_Step]]:
    """Return outputs, last h, last c and the tape of all steps in the order of the run."""
    steps, batch, _ = x.shape
    hidden = h.shape[1]
    lengths = np.full(batch, steps) if seq_lengths is None else np.asarray(seq_lengths)
    starts = np.zeros((steps, batch), bool) if resets is None else np.asarray(resets, dtype=bool)

    outputs = np.zeros((steps, batch, hidden))
    tape = []
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        live = (t < lengths)[:, None]
        if not reverse:
            boundary = starts[t]
        elif t + 1 < steps:
            boundary = starts[t + 1] & (t + 1 < lengths)
        else:
            boundary = np.zeros(batch, bool)
        zeroed = boundary[:, None]

        h_start, c_start = np.where(zeroed, 0.0, h), np.where(zeroed, 0.0, c)
        x_t = np.where(live, x[t], 0.0)
        z = x_t @ kernel_ih + h_start @ kernel_hh + bias
        i = _sigmoid(z[:, 0 * hidden : 1 * hidden])
        f = _sigmoid(z[:, 1 * hidden : 2 * hidden])
        g = np.tanh(z[:, 2 * hidden : 3 * hidden])
        o = _sigmoid(z[:, 3 * hidden : 4 * hidden])
        c_new = f * c_start + i * g
        tanh_c = np.tanh(c_new)
        h_new = o * tanh_c

        outputs[t] = np.where(live, h_new, 0.0)
        h, c = np.where(live, h_new, h), np.where(live, c_new, c)
        tape.append(_Step(t, live, zeroed, x_t, h_start, c_start, i, f, g, o, tanh_c))
    return outputs, h, c, tape


def _sigmoid(z: Array) -> Array:
    """Return 1/(1 + e⁻ᶻ), computed as exp(−log(1 + e⁻ᶻ)) so that no z overflows."""
    return np.exp(-np.logaddexp(0.0, -z))


def _float64(values: ArrayLike) -> Array:
    """Return the values as a float64 array."""
    return np.asarray(values, dtype=np.float64)
