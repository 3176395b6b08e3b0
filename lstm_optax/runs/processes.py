"""Several processes that train one model: how they join, agree and end; JAX is imported late."""

import atexit
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import tyro

from lstm_optax.runs.constraints import OptionError, check_fields, whole_numbers

HEARTBEAT_TIMEOUT = 30  # seconds of silence after which JAX counts a process as dead
NAMING_TIMEOUT = 45  # seconds to wait for JAX's message that names the dead process
LOST = re.compile("Gloo|NCCL|Connection (reset|closed)|coordination service", re.I)
PLACE = "--coordinator HOST:PORT --processes N --process I"


class ProcessError(RuntimeError):
    """Another process of the job has died, or stopped with an error."""


@dataclass(frozen=True)
class ProcessOptions:
    """Options of a training with several processes."""

    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train with several processes, which JAX finds under Slurm, Open MPI and Kubernetes; start the
    same command in each."""

    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """With --distributed where JAX finds none: address of process 0, with a free port."""

    processes: Annotated[int | None, tyro.conf.arg(metavar="INT"), whole_numbers(1)] = None
    """With --distributed where JAX finds none: number of processes."""

    process: Annotated[int | None, tyro.conf.arg(metavar="INT"), whole_numbers(0)] = None
    """With --distributed where JAX finds none: number of this process, from 0."""

    def check(self) -> None:
        """Raise OptionError for the first invalid option."""
        check_fields(self)
        given = {
            "--coordinator": self.coordinator,
            "--processes": self.processes,
            "--process": self.process,
        }
        for flag, value in given.items():
            if value is not None and not self.distributed:
                raise OptionError(f"{flag} {value} needs --distributed")
        if self.coordinator is not None:
            host, _, port = self.coordinator.rpartition(":")
            if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
                raise OptionError(
                    f"--coordinator {self.coordinator} is not HOST:PORT, such as node1:9911"
                )
        if self.processes and self.process and self.process >= self.processes:
            raise OptionError(
                f"--process {self.process} must be less than --processes {self.processes}: the "
                "processes are numbered from 0"
            )


@contextmanager
def joined_processes(options: ProcessOptions) -> Iterator[None]:
    """Connect this process to the others of the job, for the length of a training.

    After an error, this process ends without waiting for the others, which wait for it. If another
    process dies, JAX ends this one within a minute, with a message that names the dead process.

    Raises:
      OptionError: JAX finds no job of several processes, or cannot connect them.
      ProcessError: the connection to another process was lost, and JAX did not name it.
    """
    import jax

    # its handler of SIGTERM would replace that of the training
    jax.config.update("jax_enable_preemption_service", False)
    place = options.coordinator, options.processes, options.process
    try:
        jax.distributed.initialize(
            *place,
            cluster_detection_method=None if None in place else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except (ValueError, RuntimeError, OSError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise OptionError(
            f"--distributed: JAX cannot connect the processes ({reason}); start the command under "
            f"Slurm, Open MPI or Kubernetes, or pass {PLACE} to each process"
        ) from None
    try:
        yield
    except BaseException as error:
        # runs before JAX's own exit, which would wait for the other processes
        atexit.register(_leave, 130 if isinstance(error, KeyboardInterrupt) else 2)
        if isinstance(error, ProcessError) or not LOST.search(str(error)):
            raise
        time.sleep(NAMING_TIMEOUT)  # JAX ends this process with its message
        reason = next(iter(str(error).splitlines()), "")
        raise ProcessError(f"the connection to another process was lost: {reason}") from error


def is_first_process() -> bool:
    """Return whether this is process 0, which alone writes records, pictures and the screen."""
    import jax

    return jax.process_index() == 0


def in_first_process(action: Callable[[], None]) -> None:
    """Call an action in process 0 only, while the others wait for it.

    Raises:
      ProcessError: the action failed; process 0 raises its error.
    """
    from lstm_optax.checkpoints.agreement import Agreement

    error = None
    if is_first_process():
        try:
            action()
        except Exception as caught:
            error = caught
    first = Agreement().first_error(None if error is None else str(error) or repr(error))
    if error is not None:
        raise error
    if first:
        raise ProcessError(first)


def _leave(status: int) -> None:
    """End this process immediately."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
