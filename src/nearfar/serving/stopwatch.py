"""How long one job took, and what of that was tokenising, waiting and running."""

from __future__ import annotations

import time

from nearfar.jobs import Timings


class Stopwatch:
    """One job's times. The service starts it, and the lane notes when its rows came and when they ran.

    What passes before the first rows come is taken for tokenising: the rest of it is microseconds.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._came: float | None = None
        self._began: float | None = None
        self._ended: float | None = None

    def submitted(self) -> None:
        """Note that rows were put in the queue."""
        if self._came is None:
            self._came = time.perf_counter()

    def ran(self, began: float, ended: float) -> None:
        """Note a batch with some of the rows."""
        if self._began is None or began < self._began:
            self._began = began
        self._ended = ended

    def timings(self) -> Timings:
        """Give the times so far."""
        now = time.perf_counter()
        came = now if self._came is None else self._came
        began = now if self._began is None else self._began
        ended = began if self._ended is None else self._ended
        return Timings(
            total_s=now - self._started,
            tokenise_s=came - self._started,
            queue_s=began - came,
            run_s=ended - began,
        )
