"""Agreement of all processes of `jax.distributed`: on a result, and on whether all succeeded.

It uses the key-value store of the runtime, so it may run in any thread. The collectives of
`jax.experimental.multihost_utils` may not: they must run in the order of the training's own.
"""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import jax
from jax._src import distributed  # JAX exports no other access to the key-value store

from lstm_optax.checkpoints.checkpoint_error import CheckpointError

TIMEOUT = 20 * 60 * 1000  # milliseconds; Orbax waits as long
NO_ERROR = "none"
NUMBERS = count()


class Refused(RuntimeError):
    """Another process failed; the message says which, and why."""


class Agreement:
    """A sequence of agreements, made by all processes in the same order.

    It is a barrier of Orbax too, at which every process learns of an error of any other.
    """

    def __init__(self) -> None:
        self.key: str = f"lstm_optax/agreement/{next(NUMBERS)}"
        self.made: int = 0

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        """Wait for all processes.

        Raises:
          Refused: one of them called `first_error` with an error.
        """
        if error := self.first_error(None):
            raise Refused(error)

    def first_error(self, error: str | None) -> str | None:
        """Wait for all processes, and return the error of the first that has one."""
        if jax.process_count() == 1:
            return error
        rank, client, key = jax.process_index(), _client(), self._next_key()
        own = f"process {rank}: {error}" if error else NO_ERROR
        client.key_value_set(f"{key}/of/{rank}", own)
        if rank == 0:
            ranks = range(jax.process_count())
            found = [client.blocking_key_value_get(f"{key}/of/{r}", TIMEOUT) for r in ranks]
            client.key_value_delete(f"{key}/of/")
            first = next((text for text in found if text != NO_ERROR), NO_ERROR)
            client.key_value_set(f"{key}/first", first)
        first = client.blocking_key_value_get(f"{key}/first", TIMEOUT)
        return None if first == NO_ERROR else first

    def from_first(self, function: Callable[[], Any]) -> Any:
        """Return the result of a function that process 0 calls, as JSON passes it on.

        Raises:
          CheckpointError: the function raised it.
        """
        if jax.process_count() == 1:
            return function()
        client, key = _client(), self._next_key()
        if jax.process_index() == 0:
            answer: dict[str, Any] = {"error": "process 0 failed", "kept": None}
            try:
                answer = {"result": function()}
            except CheckpointError as error:
                answer = {"error": str(error), "kept": error.kept}
                raise
            finally:
                client.key_value_set(key, json.dumps(answer))
        answer = json.loads(client.blocking_key_value_get(key, TIMEOUT))
        if "error" in answer:
            raise CheckpointError(answer["error"], answer["kept"])
        return answer["result"]

    def _next_key(self) -> str:
        self.made += 1
        return f"{self.key}/{self.made}"


def _client() -> Any:
    return distributed.global_state.client
