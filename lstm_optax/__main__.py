"""The command line as `python -m lstm_optax`."""

from lstm_optax.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())
