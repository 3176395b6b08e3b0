"""The command line: lstm-optax train, sample, explain, advise, sweep, compare, bench."""
