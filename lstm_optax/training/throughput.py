"""The throughput of a training between two records."""

import time


class Throughput:
    """Measure the steps per second of training alone, without evaluation, saving and compilation.

    The first dispatch is left out, since it compiles the program.

    Attributes:
      compiled: whether the first dispatch has ended.
    """

    def __init__(self):
        self.compiled: bool = False
        self._steps, self._seconds = 0, 0.0
        self._begun = 0.0

    def begin(self) -> None:
        """Note the time before the batches of a dispatch are read."""
        self._begun: float = time.perf_counter()

    def end(self, steps: int) -> None:
        """Count the steps of the dispatch, after its metrics were read."""
        if self.compiled:
            self._steps += steps
            self._seconds += time.perf_counter() - self._begun
        self.compiled = True

    def take(self) -> float | None:
        """Return the steps per second since the last call; None if no dispatch was measured."""
        rate = self._steps / self._seconds if self._steps else None
        self._steps, self._seconds = 0, 0.0
        return rate
