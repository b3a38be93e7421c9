"""Stopwatch: how long one job was tokenized, queued and run."""

from __future__ import annotations

import math
import time

from opentelemetry.trace import SpanContext, get_current_span

from nearfar.core.jobs import Timings


class Stopwatch:
    """Measures one job, from the lease of its model. The lane records when its rows are queued and when they run.

    The time until the first rows are queued counts as tokenization: the rest of it is microseconds.
    """

    def __init__(self, requested: float | None = None, timeout_s: float = math.inf) -> None:
        """Start. ``requested`` is when the job began to wait for its model, by ``time.perf_counter``.

        The job has to be answered within ``timeout_s`` of that.
        """
        self._started = time.perf_counter()
        self.timeout_s = timeout_s
        self.deadline = timeout_s + (self._started if requested is None else requested)
        # Of a cancelled job: how many of its rows had run, and how many it had.
        self.rows_run = 0
        self.rows = 0
        self._load_s = 0.0 if requested is None else self._started - requested
        # The span of the request, and those of forwards with some of its rows. 0.2 µs where nothing is traced.
        self.span: SpanContext = get_current_span().get_span_context()
        self.forwards: list[SpanContext] = []
        self._queued: float | None = None
        self._forward_started: float | None = None
        self._forward_ended: float | None = None

    def left_s(self) -> float:
        """Return the seconds until the job has to be answered."""
        return self.deadline - time.perf_counter()

    def record_cancelled(self, rows_run: int, rows: int) -> None:
        """Record how far the rows came that were queued."""
        self.rows_run += rows_run
        self.rows += rows

    def record_queued(self) -> None:
        """Record that rows are queued; the first time counts."""
        if self._queued is None:
            self._queued = time.perf_counter()

    def record_forward(self, started: float, ended: float) -> None:
        """Record a forward with some of the rows."""
        if self._forward_started is None or started < self._forward_started:
            self._forward_started = started
        self._forward_ended = ended

    def timings(self) -> Timings:
        """Return the times so far."""
        now = time.perf_counter()
        queued = now if self._queued is None else self._queued
        started = now if self._forward_started is None else self._forward_started
        ended = started if self._forward_ended is None else self._forward_ended
        return Timings(
            load_s=self._load_s,
            taken_at=now,
            total_s=now - self._started,
            tokenize_s=queued - self._started,
            queue_s=started - queued,
            inference_s=ended - started,
        )
