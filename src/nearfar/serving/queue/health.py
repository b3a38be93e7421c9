"""Health of one lane: its throughput, whether it still answers, and when a forward counts as hanging.

Nothing can end a thread that hangs: the functions here only detect it. No queue, no engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_NEWEST = 0.2  # weight of the newest batch in the throughput
# While small requests arrive, a batch of a bulk request should take no longer than this, as they wait for it to end. It
# is never smaller than an eighth of the usual batch: below that every engine wastes its time.
_BULK_S = 0.02
_MIN_BULK_SHARE = 8
_SMALL_REQUEST_S = 1.0  # how long after a small request another one is expected; a guess
_IDLE_S = 20.0  # how long after a request of a client no other one is expected; a guess
_FAILING_S = 10.0  # how long an engine may fail on every row and still count as healthy; a guess

# The first call of a method may compile what later calls run, and no throughput is known before.
_FIRST_FACTOR = 10
# How much slower than the last batches a forward may be: long texts take more per token, a busy machine more for all.
# A guess, far on the safe side: a restart for being slow would be worse than the wait.
_SLOW_FACTOR = 20


class LaneStopped(Exception):
    """A lane stops because its engine will not answer any more; the message is the reason."""


class Throughput:
    """Moving averages of one worker's ``tokens_per_s``, of all batches and of bulk; 0 before the first one has run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.tokens_per_s = 0.0
        self.bulk_tokens_per_s = 0.0
        self._clock = clock
        self._request_at = self._small_request_at = -math.inf

    def record_batch(self, tokens: int, seconds: float, batch_tokens: int = 0) -> None:
        """Update the averages. Batches that are much smaller than ``batch_tokens`` don't show how fast bulk runs."""
        rate = tokens / (seconds or 1e-6)
        self.tokens_per_s = _average(self.tokens_per_s, rate)
        if tokens * _MIN_BULK_SHARE >= batch_tokens:
            self.bulk_tokens_per_s = _average(self.bulk_tokens_per_s, rate)

    def record_request(self, *, is_small: bool) -> None:
        """Record a request that a client waits for, and whether it is too small to fill a batch."""
        self._request_at = self._clock()
        if is_small:
            self._small_request_at = self._request_at

    @property
    def is_offline(self) -> bool:
        """Return whether no client has sent a request for a while."""
        return self._clock() - self._request_at >= _IDLE_S

    def bulk_tokens(self, batch_tokens: int) -> int:
        """Return how many tokens of a bulk request to run in one batch, at most ``batch_tokens``."""
        if not self.tokens_per_s or self._clock() - self._small_request_at >= _SMALL_REQUEST_S:
            return batch_tokens
        return min(batch_tokens, max(round(self.tokens_per_s * _BULK_S), batch_tokens // _MIN_BULK_SHARE))


def _average(before: float, newest: float) -> float:
    return (1 - _NEWEST) * before + _NEWEST * newest if before else newest


class Liveness:
    """Tracks when a lane last answered. ``timeout_s`` is how long it may work, or fail, without a single answer."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._answered_at = clock()  # or when a request arrived while nothing else was running
        self.is_failing = False

    def record_request(self, *, busy: bool) -> None:
        """Record a request; ``busy`` while others wait or run."""
        if not busy and not self.is_failing:
            self._answered_at = self._clock()

    def record_batch(self, *, answered: bool) -> None:
        """Record a batch, and whether any of its rows was answered."""
        self.is_failing = not answered
        if answered:
            self._answered_at = self._clock()

    def is_healthy(self, *, busy: bool) -> bool:
        """Return whether the lane has answered since the last request, or recently."""
        silent_s = self._clock() - self._answered_at
        return silent_s <= _FAILING_S if self.is_failing else not busy or silent_s <= self._timeout_s

    @property
    def has_failed(self) -> bool:
        """Return whether every row has failed for so long that only another process may help."""
        return self.is_failing and self._clock() - self._answered_at > self._timeout_s


def hang_timeout_s(timeout_s: float, tokens: int, tokens_per_s: float, *, is_first: bool) -> float:
    """Return the seconds after which a forward of so many tokens counts as hanging; never less than ``timeout_s``."""
    if is_first or not tokens_per_s:
        return _FIRST_FACTOR * timeout_s
    return max(timeout_s, _SLOW_FACTOR * tokens / tokens_per_s)
