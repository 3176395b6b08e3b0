"""The command line: lstm-optax train, sample, explain, advise and bench."""
