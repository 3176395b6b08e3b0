"""A learned LSTM optimizer: the rule, its meta-training, and its test on held-out tasks."""
