"""The caller of a request: its name, scopes, rate limit, priority and timeout. No keys, no HTTP."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from nearfar.core.errors import MAX_RETRY_AFTER_S, Forbidden, Overloaded
from nearfar.core.types import Allowance

Scope = Literal["embed", "rerank", "admin"]
ALL_SCOPES: tuple[Scope, ...] = ("embed", "rerank", "admin")
# What an answer has: "files" and batches of the caller, "changes" of the server's state, "internals" that only its
# operator may see, or "descriptions" of models and the server.
AnswerKind = Literal["vectors", "scores", "tokens", "files", "changes", "internals", "descriptions"]
# The scopes of which a key needs one for an answer; every key may have descriptions.
SCOPES_FOR: Mapping[AnswerKind, tuple[Scope, ...]] = {
    "vectors": ("embed",),
    "scores": ("rerank",),
    "tokens": ("embed", "rerank"),
    "files": ("embed", "rerank"),
    "changes": ("admin",),
    "internals": ("admin",),
    "descriptions": ALL_SCOPES,
}
MAX_RETRIES = 2  # of OpenAI's clients by default
LOWEST_PRIORITY = 999  # Cohere's scale: 0 is the most urgent


class RateLimit:
    """Limits one caller's concurrent requests and tokens per minute; None is no limit. Used on the event loop only.

    A token bucket: it refills evenly up to a minute's worth. A request larger than that is admitted when the
    bucket is full, and leaves a debt that later requests wait for.
    """

    def __init__(
        self,
        max_concurrent: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_concurrent = max_concurrent
        self._tokens_per_minute = tokens_per_minute
        self._clock = clock
        self._running = 0
        self._tokens_left = float(tokens_per_minute or 0)
        self._refilled_at = clock()

    def allowances(self) -> dict[str, Allowance]:
        """Return what is left of each limit: ``tokens`` and ``requests``, if they are limited."""
        found: dict[str, Allowance] = {}
        if self._tokens_per_minute is not None:
            left = self._refill(self._tokens_per_minute)
            reset_s = (self._tokens_per_minute - left) * 60 / self._tokens_per_minute
            found["tokens"] = Allowance(self._tokens_per_minute, max(int(left), 0), reset_s)
        if self._max_concurrent is not None:
            left = max(self._max_concurrent - self._running, 0)
            found["requests"] = Allowance(self._max_concurrent, left, None if self._running else 0.0)
        return found

    def acquire(self) -> None:
        """Count one more running request; ``release`` ends it. Raises Overloaded where too many run already."""
        if self._max_concurrent is not None and self._running >= self._max_concurrent:
            message = (
                f"this key may have {self._max_concurrent} requests at once (max_concurrent), and {self._running} run"
            )
            raise Overloaded(message, retry_after_s=1)
        self._running += 1

    def release(self) -> None:
        """Count one fewer running request."""
        self._running -= 1

    def spend(self, tokens: int) -> None:
        """Take tokens out of the bucket. Raises Overloaded, with the time to retry after, if too few are left."""
        if self._tokens_per_minute is None:
            return
        missing = min(tokens, self._tokens_per_minute) - self._refill(self._tokens_per_minute)
        if missing > 0:
            wait_s = math.ceil(missing * 60 / self._tokens_per_minute)
            message = (
                f"this key may use {self._tokens_per_minute:,} tokens a minute (tokens_per_minute): this request has "
                f"{tokens:,}, and {max(self._tokens_left, 0):,.0f} are left"
            )
            raise Overloaded(message, retry_after_s=min(max(wait_s, 1), MAX_RETRY_AFTER_S))
        self._tokens_left -= tokens

    def _refill(self, tokens_per_minute: int) -> float:
        """Fill the bucket up to now, and return what is in it."""
        now = self._clock()
        refill = (now - self._refilled_at) * tokens_per_minute / 60
        self._tokens_left, self._refilled_at = min(self._tokens_left + refill, tokens_per_minute), now
        return self._tokens_left

    def refund(self, tokens: int) -> None:
        """Return tokens of a request that was refused later on."""
        self._tokens_left += tokens


class AnswerSize(Struct):
    """How many bytes an answer to several jobs will have."""

    total: int = 0


class Caller(Struct, frozen=True, kw_only=True):
    """The caller of a request. Callers of the same ``name`` share one fair share of the engine."""

    name: str = ""
    scopes: tuple[Scope, ...] = ALL_SCOPES
    rate_limit: RateLimit | None = None
    # From 0, the most urgent, to 999.
    priority: int = 0
    # How long the caller waits for an answer; None: as long as the server allows.
    timeout_s: float | None = None
    # How often this request was refused before; None where the client doesn't send it.
    retries: int | None = None
    # Of the answer that all jobs of this request share; None for a request of one job.
    answer: AnswerSize | None = None
    # Whether it is a batch: its jobs may run as one, and other bulk needn't be quick for them.
    is_batch: bool = False

    @property
    def is_last_attempt(self) -> bool:
        """Return whether most clients don't retry after this attempt."""
        return self.retries is not None and self.retries >= MAX_RETRIES

    @property
    def token_weight(self) -> float:
        """Return the fair-queue cost of a token: 1 for the most urgent, 11 for the least, which so never starve."""
        return 1.0 + min(self.priority, LOWEST_PRIORITY) / 100

    def require_scope_for(self, kind: AnswerKind) -> None:
        """Raise Forbidden where the caller has no scope for such an answer."""
        if not set(SCOPES_FOR[kind]).intersection(self.scopes):
            raise Forbidden(self.name, " or ".join(SCOPES_FOR[kind]))


ANONYMOUS = Caller()
