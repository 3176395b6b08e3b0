"""Experiments: where data, models, optimizers and training meet; each returns records."""
