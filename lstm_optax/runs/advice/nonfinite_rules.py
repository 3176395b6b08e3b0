"""A rule over the steps of a run that were not finite."""

from lstm_optax.runs.advice.facts import RunFacts
from lstm_optax.runs.advice.finding import Finding

OFTEN = 0.01  # of the steps
COUNTS = ("skipped", "carry_resets", "rewinds")


def nonfinite_steps(facts: RunFacts) -> Finding | None:
    """Find steps that were not finite: skipped, with rows of the carry reset, or rewound."""
    counts = {name: sum(row.get(name) or 0 for row in facts.records) for name in COUNTS}
    share, rewinds = counts["skipped"] / facts.steps, counts["rewinds"]
    if share < OFTEN and not rewinds and not counts["carry_resets"]:
        return None
    rate, clip = facts.config.learning_rate / 3, facts.config.clip
    return Finding(
        rule="nonfinite-steps",
        message=f"Loss, gradient or carry were not finite in some of the {facts.steps:,} steps: "
        f"skipped steps {counts['skipped']:,}, rows of the carry that were reset "
        f"{counts['carry_resets']:,}, rewinds {rewinds:,}.",
        numbers={"share": share} | counts,
        threshold=f"{OFTEN:.0%} of the steps skipped, or a row reset, or a rewind",
        confidence="high" if rewinds or share >= 10 * OFTEN else "medium",
        remedy=f"--learning-rate {rate:.2g}, {'a smaller --clip' if clip else '--clip 1'}, or "
        "--clip-gates 10; if they come with the same batches, look for bad data there",
        source="own definition",
    )
