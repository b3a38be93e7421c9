"""How long one job took, and what of that was tokenising, waiting and running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.trace import get_current_span

from nearfar.core.jobs import Timings

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext


class Stopwatch:
    """One job's times. The service starts it, and the lane notes when its rows came and when they ran.

    What passes before the first rows come is taken for tokenising: the rest of it is microseconds. ``span`` is the
    request's, where it is traced, and ``batches`` are the spans of those that had some of the rows.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.span: SpanContext = get_current_span().get_span_context()  # 0.2 µs where nothing is traced
        self.forwards: list[SpanContext] = []
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
            taken_at=now,
            total_s=now - self._started,
            tokenize_s=came - self._started,
            queue_s=began - came,
            inference_s=ended - began,
        )
