"""How fast an engine runs, from its last batches, and how much of a bulk request to give it at a time."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_NEW = 0.2  # what the newest batch counts for
# While small requests come, a batch of a bulk one should take no longer than this: they wait for it to end. Never less
# than an eighth of what suits the engine, below which every engine wastes its time.
_BULK_S = 0.02
_LEAST_SHARE = 8
_COMPANY_S = 1.0  # how long after a small request another is expected; a guess


class Pace:
    """``tokens_per_s`` is what one batch makes, 0 before the first has run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.tokens_per_s = 0.0
        self._clock = clock
        self._small_came = -math.inf

    def ran(self, tokens: int, seconds: float) -> None:
        """Note a batch."""
        rate = tokens / max(seconds, 1e-6)
        self.tokens_per_s = (1 - _NEW) * self.tokens_per_s + _NEW * rate if self.tokens_per_s else rate

    def small_came(self) -> None:
        """Note a request that doesn't fill a batch."""
        self._small_came = self._clock()

    def bulk_tokens(self, full: int) -> int:
        """Give how much of a bulk request to run at once, where a batch may have ``full`` tokens."""
        if not self.tokens_per_s or self._clock() - self._small_came >= _COMPANY_S:
            return full
        return min(full, max(round(self.tokens_per_s * _BULK_S), full // _LEAST_SHARE))
