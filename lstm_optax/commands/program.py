"""Parse the command line, run a command, report errors."""

import io
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape

from lstm_optax._version import __version__
from lstm_optax.commands.advise import Advise, run_advise
from lstm_optax.commands.bench import Bench
from lstm_optax.commands.compare import Compare
from lstm_optax.commands.explain import Explain
from lstm_optax.commands.flags import flags_of, parse_flags, replace_arguments_by_flags
from lstm_optax.commands.output import keep_running
from lstm_optax.commands.prepare import Prepare
from lstm_optax.commands.report import Report
from lstm_optax.commands.reproduce import Reproduce
from lstm_optax.commands.sample import Sample, run_sample
from lstm_optax.commands.sweep import Sweep
from lstm_optax.commands.train import Train, run_train, stored_config
from lstm_optax.os_errors import WRITE_ERRORS
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.processes import ProcessError
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.studies.study_records import StudyError

if TYPE_CHECKING:
    from lstm_optax.checkpoints import CheckpointError

COMMANDS: dict[str, type] = {
    "prepare": Prepare,
    "train": Train,
    "sample": Sample,
    "explain": Explain,
    "advise": Advise,
    "sweep": Sweep,
    "compare": Compare,
    "report": Report,
    "reproduce": Reproduce,
    "bench": Bench,
}


def run_program(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 2 for a user error, 130 after an interruption."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack some characters
    if argv == ["--version"]:
        print(f"lstm-optax {__version__}")
        return 0
    output = Console(highlight=False, emoji=False)
    errors = Console(stderr=True, highlight=False, emoji=False)
    keep_running(errors)
    try:
        command = _parse(argv)
        if isinstance(command, Train):
            return run_train(command, output)
        if isinstance(command, Sample):
            return run_sample(command, errors)
        if isinstance(command, Advise):
            return run_advise(command, output)
        return command.run(output)
    except BrokenPipeError:  # the reader closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141  # the status of a program that SIGPIPE ended
    except Exception as error:
        message = _user_error_message(error)
        if message is None:
            raise
        line = f"[bold red]error:[/] {escape(replace_arguments_by_flags(message))}"
        errors.print(line, soft_wrap=not errors.is_terminal)
        return 2


def _parse(argv: list[str]) -> Any:
    """Parse the flags; with --resume, the options of the run replace the defaults."""
    stored = Train()
    if argv[:1] == ["train"] and "--resume" in argv:
        given = parse_flags(Train, argv[1:], "lstm-optax train", flags_of(Train))
        run = RunFolder(given.run) if given.run else RunFolder.newest()
        stored = Train(config=stored_config(run, given.config), run=run.path)
    commands = Annotated[
        Annotated[Train, tyro.conf.subcommand("train", default=stored)]
        | Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[Explain, tyro.conf.subcommand("explain")]
        | Annotated[Advise, tyro.conf.subcommand("advise")]
        | Annotated[Sweep, tyro.conf.subcommand("sweep")]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
        | Annotated[Bench, tyro.conf.subcommand("bench")],
        tyro.conf.OmitSubcommandPrefixes,
    ]
    names = flags_of(COMMANDS[argv[0]]) if argv and argv[0] in COMMANDS else []
    return parse_flags(commands, argv, "lstm-optax", names)


def _user_error_message(error: Exception) -> str | None:
    """Return the message of an error that the user can fix; None for a bug."""
    if isinstance(error, OptionError | ProcessError | StudyError):
        return str(error)
    if isinstance(error, OSError):
        return _os_error_message(error)
    if isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|Out of memory", str(error)):
        return (
            "out of memory: use a smaller --batch, --window or --hidden; in a study, by --task-set"
        )
    from lstm_optax.data import TextError

    if isinstance(error, TextError):
        return str(error)
    from lstm_optax.checkpoints import CheckpointError
    from lstm_optax.runs import Diverged

    if isinstance(error, CheckpointError):
        return f"{error}{_checkpoint_remedy(error)}"
    return str(error) if isinstance(error, Diverged) else None


def _os_error_message(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    remedy = "check the folder, or choose another with --run DIR (train) or --out DIR (studies)"
    if error.errno in WRITE_ERRORS:
        remedy = (
            f"{WRITE_ERRORS[error.errno][1]}, and continue from the last checkpoint with --resume"
        )
    return f"{place}{error.strerror or error}; {remedy}"


def _checkpoint_remedy(error: "CheckpointError") -> str:
    if error.kept is None:
        return ": train again with --overwrite"
    return "; then continue with --resume" if error.kept else "; then train again with --overwrite"
