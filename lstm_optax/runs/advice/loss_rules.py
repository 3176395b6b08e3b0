"""Rules over the losses of a run."""

import numpy as np

from lstm_optax.runs.advice.facts import RunFacts
from lstm_optax.runs.advice.finding import Finding

FALL = 0.01  # of the validation loss, over the last fifth of the steps
RISE = 0.02  # of the validation loss above its minimum
JUMP, LARGE = 1.1, 3.0  # factors of a training loss, and of a gradient norm


def still_falling(facts: RunFacts) -> Finding | None:
    """Find a validation loss that still falls at the end of a finished run."""
    steps, losses = facts.series("val_loss")
    earlier = losses[steps <= 0.8 * facts.steps]
    finished = facts.steps >= facts.config.steps
    if not finished or len(losses) < 5 or not earlier.size or losses[-1] > losses.min():
        return None
    fall, since = 1 - losses[-1] / earlier[-1], steps[len(earlier) - 1]
    if fall < FALL or earlier[-1] <= 0:
        return None
    constant, more = facts.config.schedule == "constant", 2 * facts.steps
    return Finding(
        rule="still-falling",
        message=f"The validation loss is lowest at the end, {losses[-1]:.4g}, and was "
        f"{earlier[-1]:.4g} at step {since:,.0f} of {facts.steps:,}: a fall of {fall:.1%}.",
        numbers={"fall": fall, "since": since, "before": earlier[-1], "last": losses[-1]},
        threshold=f"a fall of {FALL:.0%} over the last fifth of the steps",
        # a rate that falls to 0 lowers the loss at the end of a run of any length
        confidence="high" if constant else "medium",
        remedy=f"--resume --steps {more}"
        if constant
        else f"a new run with --steps {more}: the {facts.config.schedule} schedule ends with the "
        "run, so that --resume cannot extend it",
        source="own definition",
    )


def overfitting(facts: RunFacts) -> Finding | None:
    """Find a validation loss that rose from its minimum while the training loss fell."""
    steps, val, train = facts.series("val_loss", "train_loss")
    if not len(val) or val.min() <= 0:
        return None
    best = int(val.argmin())
    rise = val[-2:].min() / val[best] - 1  # one evaluation may be noise
    if rise < RISE or train[-1] >= train[best]:
        return None
    more = "a higher --dropout" if facts.config.dropout else "--dropout 0.3"
    return Finding(
        rule="overfitting",
        message=f"Since step {steps[best]:,.0f} the validation loss rose from {val[best]:.4g} to "
        f"{val[-1]:.4g}, by at least {rise:.1%} in the last two evaluations, while the training "
        f"loss fell from {train[best]:.4g} to {train[-1]:.4g}.",
        numbers={"step": steps[best], "rise": rise, "best": val[best], "last": val[-1]},
        threshold=f"a rise of {RISE:.0%} in each of the last two evaluations",
        confidence="high" if rise >= 2 * RISE else "medium",
        remedy=f"{more}, --weight-dropout 0.3 or more text; a smaller --patience stops earlier. "
        "load_run and lstm-optax sample use the best checkpoint.",
        source="Prechelt, 1998, doi:10.1007/3-540-49430-8_3, generalization loss",
    )


def loss_spikes(facts: RunFacts) -> Finding | None:
    """Find jumps of the training loss in or after an interval with rare large gradients."""
    steps, losses, norms = facts.series("train_loss", "grad_norm")
    if len(steps) < 8:
        return None
    usual = np.median(norms)
    jumps = [
        i
        for i in range(3, len(steps))
        if losses[i] >= JUMP * np.median(losses[i - 3 : i]) > 0
        and norms[i - 1 : i + 1].max() >= LARGE * usual
    ]
    if not jumps or np.mean(norms >= LARGE * usual) > 0.2:
        return None
    first = jumps[0]
    rise = losses[first] / np.median(losses[first - 3 : first])
    ratio = norms[first - 1 : first + 1].max() / usual
    times = f", the first of {len(jumps)} such jumps" if len(jumps) > 1 else ""
    return Finding(
        rule="loss-spikes",
        message=f"At step {steps[first]:,.0f} the training loss was {rise:.3g} times that of the "
        f"three records before, after gradients with {ratio:.3g} times the usual norm{times}.",
        numbers={"step": steps[first], "rise": rise, "norm": ratio, "jumps": len(jumps)},
        threshold=f"a rise by {JUMP - 1:.0%} with {LARGE:g} times the median norm, in at most a "
        "fifth of the records",
        confidence="medium" if len(jumps) > 1 else "low",
        remedy="clip_by_norm_quantile in front of the optimizer, a smaller --clip, or for an "
        "optimizer like Adam a larger eps or a smaller b2",
        source="Seetharaman et al., 2020, arXiv:2007.14469; Molybog et al., 2023, arXiv:2304.09871",
    )


def idle_average(facts: RunFacts) -> Finding | None:
    """Find an average that waits for a trigger which did not come."""
    waits = facts.hyper_parameters.get("nonmonotone")
    flags = [row["averaging"] for row in facts.records if "averaging" in row]
    if waits is None or not flags or any(flags):
        return None
    needed, count = int(waits) + 2, len(flags)
    message = f"The average of {facts.config.optimizer} never started: "
    if count < needed:
        message += f"its trigger needs {needed} evaluations, and the run has {count}."
        remedy = f"--eval-every {max(facts.steps // (4 * needed), 1)}, or more --steps"
    else:
        message += f"in {count} evaluations the validation loss kept improving."
        remedy = "more --steps, or in Python polyak_average(…, start=…), which needs no trigger"
    return Finding(
        rule="idle-average",
        message=message,
        numbers={"evaluations": count, "needed": needed},
        threshold="no evaluation of an average",
        confidence="high",
        remedy=remedy,
        source="Merity, Keskar & Socher, 2018, arXiv:1708.02182, NT-ASGD",
    )
