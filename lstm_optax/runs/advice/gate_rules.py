"""Rules over the gradient inside the LSTM, as `train --diagnose` records it."""

import numpy as np

from lstm_optax.gates import GATES
from lstm_optax.runs.advice.facts import RunFacts
from lstm_optax.runs.advice.finding import Finding

VANISHED = 1e-4  # of the gradient at the last step
SHUT = 0.5  # share of the units and steps
SILENT = 1e-6  # of the largest gradient of a gate in the layer


def vanishing_gradient(facts: RunFacts) -> Finding | None:
    """Find a gradient of the last loss that reaches less than half of the window."""
    rows = facts.late_gradients("reach")
    if not rows or rows[0].ndim != 2:
        return None
    norms = np.median(rows, axis=0)  # [layer, time]
    norms = norms[norms[:, -1] > 0]
    window = norms.shape[1]
    alive = np.flatnonzero((norms >= VANISHED * norms[:, -1:]).any(0))
    if not alive.size or 2 * (reach := window - 1 - int(alive[0])) >= window - 1:
        return None
    return Finding(
        rule="vanishing-gradient",
        message=f"The gradient of the last step's loss reaches {reach} steps back, then is below "
        f"1e-4 of its size at the last step, in a window of {window} steps.",
        numbers={"reach": reach, "window": window},
        threshold="below 1e-4 from half of the window back, in every layer",
        confidence="medium",
        remedy=f"if the task needs a longer memory: init_chrono(params, key, max_time={window}) or "
        f"vanishing_penalty; if not, --window {max(2 * reach, 2)} costs less",
        source="Bengio, Simard & Frasconi, 1994, doi:10.1109/72.279181; remedy: Tallec & Ollivier, "
        "2018, arXiv:1804.11188",
    )


def forget_gate_shut(facts: RunFacts) -> Finding | None:
    """Find a layer whose forget gate is near 0 in most units and steps."""
    shares = {i: facts.late_mean(f"layer{i}.forget.saturated_low") for i in facts.layers()}
    shares = {i: share for i, share in shares.items() if share >= SHUT}
    if not shares:
        return None
    layer = max(shares, key=lambda i: shares[i])
    return Finding(
        rule="forget-gate-shut",
        message=f"In layer {layer} the forget gate is below 0.05 in {shares[layer]:.0%} of the "
        "units and time steps: these units keep nothing of their memory.",
        numbers={"layer": layer, "share": shares[layer]},
        threshold=f"a share of {SHUT:.0%}, the mean over the second half of the run",
        confidence="medium",
        remedy="start with a larger forget bias: LSTM(…, forget_bias=2) or "
        f"init_chrono(params, key, max_time={facts.config.window}); or a smaller --learning-rate",
        source="Jozefowicz, Zaremba & Sutskever, 2015, ICML; threshold: own definition",
    )


def gate_without_gradient(facts: RunFacts) -> Finding | None:
    """Find a gate that gets no gradient while another gate of its layer does."""
    found = []
    for layer in facts.layers():
        norms = {gate: facts.late_mean(f"layer{layer}.{gate}.grad_norm") for gate in GATES}
        largest = np.nanmax([0.0, *norms.values()])
        found += [
            (layer, gate, norm / largest)
            for gate, norm in norms.items()
            if largest > 0 and norm <= SILENT * largest
        ]
    if not found:
        return None
    layer, gate, ratio = min(found, key=lambda item: item[2])
    names = ", ".join(f"{gate} in layer {layer}" for layer, gate, _ in found)
    ends = [facts.late_mean(f"layer{layer}.{gate}.saturated_{end}") for end in ("low", "high")]
    return Finding(
        rule="gate-without-gradient",
        message=f"A gate gets no gradient: {names}; its norm is {ratio:.2g} of the largest gate's, "
        f"and {np.nansum(ends):.0%} of its units are saturated.",
        numbers={"layer": layer, "ratio": ratio, "saturated": float(np.nansum(ends))},
        threshold="a norm of at most 1e-6 of the largest in the layer",
        confidence="high",
        remedy="a smaller --learning-rate and --clip-gates 10, which keep gates from saturating; "
        "a forget gate needs a --window of at least 2",
        source="own definition",
    )
