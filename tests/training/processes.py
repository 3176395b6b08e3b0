"""Run a program in several real processes, which JAX connects over loopback."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# The beginning of a program for `run_processes`: one CPU device for each process, all connected.
CONNECT = """
import os
import jax
jax.config.update("jax_num_cpu_devices", 1)
jax.distributed.initialize(
    os.environ["JAX_COORDINATOR_ADDRESS"],
    num_processes=int(os.environ["PROCESS_COUNT"]),
    process_id=int(os.environ["PROCESS_ID"]),
    initialization_timeout=60,
    heartbeat_timeout_seconds=10,
    shutdown_timeout_seconds=20,
)
"""


def run_processes(
    script: str, count: int, *args: object, timeout: float
) -> list[subprocess.CompletedProcess]:
    """Return the results of `count` processes of one program, in order of their numbers.

    Args:
      script: the text of the program; begin it with `CONNECT` to connect the processes.
      count: the number of processes.
      args: passed to each as `sys.argv[1:]`.
      timeout: seconds for all together; afterwards those that still run are killed.
    """
    end = time.monotonic() + timeout
    with started_processes(script, count, *args) as processes:
        for process, _ in processes:
            try:
                process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        return [
            subprocess.CompletedProcess(process.args, process.returncode, output.read_text())
            for process, output in processes
        ]


@contextmanager
def started_processes(
    script: str, count: int, *args: object
) -> Iterator[list[tuple[subprocess.Popen, Path]]]:
    """Yield the running processes, each with the file of its output; kill them at the end.

    The output is a file and not a pipe, since a full pipe would stop all processes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        processes = []
        for rank in range(count):
            output = Path(folder) / str(rank)
            process = subprocess.Popen(
                [sys.executable, "-c", script, *map(str, args)],
                stdin=subprocess.DEVNULL,
                stdout=stack.enter_context(output.open("wb")),
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parent,
                env=os.environ
                | {
                    "JAX_COORDINATOR_ADDRESS": address,
                    "PROCESS_COUNT": str(count),
                    "PROCESS_ID": str(rank),
                },
            )
            stack.callback(_kill, process)
            processes.append((process, output))
        yield processes


def _kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait(10)
