"""Advice on a run: facts read from its records, and rules that turn facts into findings."""
