"""The part of a training's records that is the same in each run."""

from lstm_optax.records import MEASURED


def reproducible(records):
    """Return the records without what depends on the machine."""
    return [{k: v for k, v in record.items() if k not in MEASURED} for record in records]
