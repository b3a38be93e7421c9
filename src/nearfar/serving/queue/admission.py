"""Admission control: bounds one model's queue in tokens and requests, and computes retry-after. No rows, no engine.

A refused caller is asked to retry at the queue's virtual finish time: when all that is queued, and all that was refused
before it, will have run. So refused requests come back one after another instead of all at once. A caller at its last
attempt may exceed the limits by half. A caller that fills the queue doesn't lock the others out: up to its equal share
each is admitted to a full queue, which never exceeds twice its limits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from nearfar.core.caller import Caller
from nearfar.core.errors import MAX_RETRY_AFTER_S, Overloaded
from nearfar.core.types import QueueCapacity

_MIN_RETRY_AFTER_S = 0.5
_UNKNOWN_RETRY_AFTER_S = 1.0  # before the first batch has run
_LAST_ATTEMPT = 1.5  # how full the queue may be for a client's last attempt


class QueueLimits(Struct, frozen=True, kw_only=True):
    """The most tokens, and the most requests, that may wait for a model or run in it."""

    tokens: int
    requests: int


class Admission:
    """Counts the tokens and requests in one model's queue. Used on the event loop only.

    ``throughput`` returns the tokens per second that leave the queue, 0 before the first batch has run.
    """

    def __init__(
        self,
        model: str,
        limits: QueueLimits,
        throughput: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.tokens = 0
        self.requests = 0
        self._model = model
        self._throughput = throughput
        self._clock = clock
        self._tokens_of: Counter[str] = Counter()  # by the caller's name
        self._virtual_finish = 0.0  # when all that is queued and all that was refused will have run

    def admit(self, tokens: int, caller: Caller) -> int:
        """Count a request and return the tokens it is charged for. Raises Overloaded when the queue is full.

        A request larger than half of the queue is charged for half: it is interleaved with others and may not block
        them. ``release`` has to be called with the charge when the request ends.
        """
        charge = min(tokens, self.limits.tokens // 2)
        if not self._fits(charge, 1.0) and not self._may_exceed(charge, caller):
            raise self._overloaded(charge, f", and this request has {tokens:,} tokens")
        self.tokens += charge
        self.requests += 1
        self._tokens_of[caller.name] += charge
        return charge

    def refuse_if_full(self, caller: Caller) -> None:
        """Raise Overloaded when not one token fits: tokenizing a request for a full queue would waste time."""
        if not self._fits(1, 1.0) and not self._may_exceed(1, caller):
            raise self._overloaded(self.tokens // max(self.requests, 1), "")  # it counts as an average request

    def release(self, charge: int, caller: Caller) -> None:
        """Stop counting a request that ``admit`` charged."""
        self.tokens -= charge
        self.requests -= 1
        self._tokens_of[caller.name] -= charge
        if not self.requests:
            self._tokens_of.clear()
            self._virtual_finish = 0.0

    def capacity(self) -> QueueCapacity:
        """Return how much more the queue takes, and how long it takes to empty."""
        rate = self._throughput()
        return QueueCapacity(
            tokens_limit=self.limits.tokens,
            tokens_free=max(self.limits.tokens - self.tokens, 0),
            requests_limit=self.limits.requests,
            requests_free=max(self.limits.requests - self.requests, 0),
            drain_s=self.tokens / rate if rate else None if self.tokens else 0.0,
        )

    def _overloaded(self, charge: int, size: str) -> Overloaded:
        limits = self.limits
        message = (
            f"the queue of {self._model} is full: {self.tokens:,} of {limits.tokens:,} tokens (queue_tokens) and "
            f"{self.requests:,} of {limits.requests:,} requests (queue_requests) wait{size}"
        )
        return Overloaded(message, self._retry_after_s(charge), self.capacity())

    def _fits(self, charge: int, factor: float) -> bool:
        """Return whether one more request stays within ``factor`` times the limits."""
        limits = self.limits
        return self.tokens + charge <= limits.tokens * factor and self.requests < max(limits.requests * factor, 1)

    def _may_exceed(self, charge: int, caller: Caller) -> bool:
        """Return whether the caller is admitted to a full queue: at its last attempt, or within its equal share."""
        if caller.is_last_attempt and self._fits(charge, _LAST_ATTEMPT):
            return True
        return self._fits(charge, 2.0) and self._is_within_equal_share(charge, caller.name)

    def _is_within_equal_share(self, charge: int, name: str) -> bool:
        """Return whether the caller stays within an equal share of the queue that other callers have filled."""
        others = sum(1 for other, tokens in self._tokens_of.items() if tokens and other != name)
        return others > 0 and self._tokens_of[name] + charge <= self.limits.tokens // (others + 1)

    def _retry_after_s(self, charge: int) -> float:
        """Advance the virtual finish time by a refused request, and return the seconds until then."""
        rate = self._throughput()
        if not rate:
            return _UNKNOWN_RETRY_AFTER_S
        now = self._clock()
        finish = max(self._virtual_finish, now + self.tokens / rate) + charge / rate
        self._virtual_finish = min(finish, now + MAX_RETRY_AFTER_S)
        return max(self._virtual_finish - now, _MIN_RETRY_AFTER_S)
