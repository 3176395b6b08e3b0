"""Rules over the steps of the optimizer: their clip, their size, and their moments."""

import numpy as np

from lstm_optax.runs.advice.facts import RunFacts
from lstm_optax.runs.advice.finding import Finding

OFTEN = 0.9  # share of the steps
SMALL, USUAL, LARGE = 1e-5, 1e-3, 1e-1  # ‖Δθ‖ / ‖θ‖
WARM = 0.25  # weight of the gradients in a moment that started at 0
MOMENT_DECAYS = ("b2", "beta_2", "beta2", "betas.1", "adam_b2", "nu", "decay", "rho", "alpha")


def clip_in_every_step(facts: RunFacts) -> Finding | None:
    """Find a clip that scales the gradient in nearly every step."""
    _, shares, norms = facts.series("clipped", "grad_norm")
    if not shares.size or (share := shares.mean()) < OFTEN:
        return None
    usual, clip = float(np.median(norms)), facts.config.clip
    bound = f" (--clip {clip:g})" if clip else ""
    own = " or the optimizer's own clip" if "clip" in facts.hyper_parameters else ""
    return Finding(
        rule="clip-every-step",
        message=f"A clip{bound} scaled the gradient in {share:.0%} of the steps; its usual norm is "
        f"{usual:.3g}. Every step then sees a gradient of the same norm: for SGD, the step is "
        "--learning-rate times the clip, whatever the gradient.",
        numbers={"share": share, "clip": clip, "grad_norm": usual},
        threshold=f"{OFTEN:.0%} of the steps",
        confidence="medium",
        remedy=f"--clip {2 * usual:.2g}{own}, twice the usual norm, and tune --learning-rate again",
        source="own definition; the clip: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063",
    )


def update_size(facts: RunFacts) -> Finding | None:
    """Find matrices whose updates are far too small or too large against their weights."""
    ratios = _usual_ratios(facts)
    outside = {name: r for name, r in ratios.items() if not SMALL <= r <= LARGE}
    if not outside:
        return None
    worst = max(outside, key=lambda name: abs(np.log10(max(outside[name], 1e-30) / USUAL)))
    ratio = outside[worst]
    size = "large" if ratio > LARGE else "small"
    rate = facts.config.learning_rate * USUAL / max(ratio, SMALL / 100)
    return Finding(
        rule="update-size",
        message=f"The updates are far too {size} against the weights: ‖Δθ‖/‖θ‖ is {ratio:.2g} for "
        f"{worst}, and outside the bounds for {len(outside)} of {len(ratios)} matrices.",
        numbers={"ratio": ratio, "outside": len(outside), "matrices": len(ratios)},
        threshold="outside 1e-5 to 0.1, a factor of 100 around 1e-3; the median over the "
        "records with at least half of the largest rate",
        confidence="medium",
        remedy=f"a --learning-rate between that of the run, {facts.config.learning_rate:g}, and "
        f"{rate:.1g}, at which this ratio would be about 1e-3",
        source="Karpathy, CS231n course notes, 2016, for 1e-3; bounds: own definition",
    )


def _usual_ratios(facts: RunFacts) -> dict[str, float]:
    """Return the median ratio of each matrix, while the rate was at least half of its largest."""
    steps, rates = facts.series("learning_rate")
    high = set(steps[2 * rates >= rates.max(initial=0)])
    rows = [row.get("update_ratio") or {} for row in facts.gradients if row["step"] in high]
    names = {name: None for row in rows for name in row}
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name: float(np.median(ratios)) for name, ratios in values.items() if ratios}


def cold_moments(facts: RunFacts) -> Finding | None:
    """Find a moment that is still dominated by its start when the run ends."""
    decays = {
        n: facts.hyper_parameters[n]
        for n in MOMENT_DECAYS
        if 0 < facts.hyper_parameters.get(n, 0) < 1
    }
    if not decays:
        return None
    name = max(decays, key=lambda n: decays[n])
    decay, steps = decays[name], facts.steps
    weight, span = 1 - decay**steps, 1 / (1 - decay)
    if weight >= WARM:
        return None
    return Finding(
        rule="cold-moments",
        message=f"{facts.config.optimizer} averages over about {span:,.0f} steps ({name} = "
        f"{decay:g}), but the run took {steps:,}: at its end, the gradients have {weight:.0%} of "
        f"the weight, and the steps of a rule without bias correction are {weight**-0.5:.2g} times "
        "their steady size.",
        numbers={"decay": decay, "span": span, "steps": steps, "weight": weight},
        threshold=f"a weight 1 − {name}ⁿ below {WARM:g} after n steps, a factor of 2 in the step",
        confidence="low",
        remedy=f"more --steps, or --set {name}={1 - 10 / max(steps, 20):.3g}, which averages "
        "over a tenth of the run",
        source="Kingma & Ba, 2015, arXiv:1412.6980, section 3; threshold: own definition",
    )


def late_clip(facts: RunFacts) -> Finding | None:
    """Find an optimizer whose state absorbs a large gradient, with a clip behind it or none."""
    found = facts.late_clip
    if found is None or not found.spike:
        return None
    where = (
        "A clip acts on the steps, behind the moments of the optimizer"
        if found.bounded
        else "No clip acts on the gradient, in front of the moments of the optimizer"
    )
    return Finding(
        rule="late-clip",
        message=f"{where}: one gradient of {found.spike} among gradients of 1 "
        f"makes {found.disturbed:,} of the next {found.measured:,} steps wrong by more than a "
        "factor of 2.",
        numbers={"disturbed": found.disturbed, "measured": found.measured},
        threshold="5 steps that are wrong by a factor of 2, and bounded steps",
        confidence="high" if found.bounded else "medium",
        remedy="optax.chain(clip_by_global_norm(1.0), optimizer): the clip first",
        source="own definition, measured by explain; see docs/explain.md",
    )
