"""The command line as `python -m lstm_optax`."""

from lstm_optax.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
