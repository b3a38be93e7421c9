"""Forecast: whether a request will be answered in time, at the measured throughput. No engine."""

from __future__ import annotations

import time

from nearfar.core.errors import MAX_RETRY_AFTER_S, Overloaded
from nearfar.serving.queue.batch import QueuedRequest
from nearfar.serving.queue.health import Throughput
from nearfar.serving.queue.scheduler import Scheduler

# The share of its time that a new request may be forecast to take: throughput varies, and a late answer is wasted work.
_MAX_TIME_RATIO = 0.8
_CHECK_EVERY_S = 0.5  # how often what waits is checked


class Forecast:
    """Finds the requests of one model that can't be answered in time. The scheduler's lock guards every call.

    Nothing is forecast before the first batch has run.
    """

    def __init__(self, model: str, scheduler: Scheduler, throughput: Throughput, threads: int) -> None:
        self._model = model
        self._scheduler = scheduler
        self._throughput = throughput
        self._threads = threads
        self._checked_at = 0.0

    def refuse_if_late(self, request: QueuedRequest, running: int) -> None:
        """Raise Overloaded for a new request that can't be answered in time while so many tokens run."""
        rate = self._tokens_per_s()
        if not rate:
            return
        own = request.waiting_tokens
        in_time = request.stopwatch.left_s() * rate * _MAX_TIME_RATIO
        if own + running + self._scheduler.count_tokens() <= in_time:
            return
        ahead = self._scheduler.tokens_before(request) + running
        # Small batches may be much slower than bulk: a first bulk request shows how fast that is.
        is_known = ahead or self._throughput.bulk_tokens_per_s
        if is_known and own + ahead > in_time:
            raise self._error(request, ahead, rate)

    def find_late(self) -> list[tuple[QueuedRequest, Overloaded]]:
        """Return the requests that can't be answered in time any more and have no row that has run.

        It looks every half second; in between it returns none.
        """
        now = time.perf_counter()
        if now - self._checked_at < _CHECK_EVERY_S or not (rate := self._tokens_per_s()):
            return []
        # The first time, the throughput has just become known: what waits is refused as if it arrived now.
        share = 1.0 if self._checked_at else _MAX_TIME_RATIO
        self._checked_at = now
        late = self._scheduler.find_late(rate * share, now)
        return [(request, self._error(request, ahead, rate)) for request, ahead in late]

    def _tokens_per_s(self) -> float:
        """Return the tokens that all threads run in a second, as far as known: of bulk, if there was any."""
        return (self._throughput.bulk_tokens_per_s or self._throughput.tokens_per_s) * self._threads

    def _error(self, request: QueuedRequest, ahead: int, tokens_per_s: float) -> Overloaded:
        """Return the error for a request that can't be answered in time after so many other tokens."""
        stopwatch, own = request.stopwatch, request.total_tokens
        left_s = stopwatch.left_s()
        needed_s = stopwatch.timeout_s - left_s + (own + ahead) / tokens_per_s
        fits = int(left_s * _MAX_TIME_RATIO * tokens_per_s) - ahead
        retry_after_s = min(max(needed_s - stopwatch.timeout_s * _MAX_TIME_RATIO, 1.0), MAX_RETRY_AFTER_S)
        at_once = f"send at most {fits:,} tokens at once, or " if 0 < fits < own else ""
        return Overloaded(
            f"{self._model} would need {needed_s:,.1f} s for this request, and the limit is {stopwatch.timeout_s:g} s "
            f"(request_timeout_s, or the header x-nearfar-timeout-s): it has {own:,} tokens, {ahead:,} run before it, "
            f"and {tokens_per_s:,.0f} run a second; {at_once}try again in {retry_after_s:.0f} s",
            retry_after_s=retry_after_s,
        )
