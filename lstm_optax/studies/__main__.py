"""Print the tables of studies from their records: `python -m lstm_optax.studies FILE …`."""

import sys

from lstm_optax.studies.tables import read_study, study_table


def main(files: list[str]) -> int:
    """Print the tables of each file; return the exit status, 2 for invalid input."""
    if not files or any(name.startswith("-") for name in files):
        print(__doc__, file=sys.stderr)
        return 0 if set(files) & {"-h", "--help"} else 2
    for name in files:
        try:
            print(study_table(read_study(name)))
        except OSError as error:
            print(f"error: {name}: {error.strerror}", file=sys.stderr)
            return 2
        except (ValueError, KeyError, TypeError) as error:
            print(f"error: {name} holds no records of a study: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
