"""The command line: lstm-optax train, sample, explain and bench."""
