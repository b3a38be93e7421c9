"""Whether requests are being answered, which batches wait for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_ACTIVE_S = 0.1  # after the last request: clients that wait for each answer send the next one within that
_IDLE_S = 20.0  # after the last request: no other one is expected; a guess


class Activity:
    """Knows when the last request came."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recorded_at = -math.inf

    def record(self) -> None:
        """Record a request."""
        self._recorded_at = self._clock()

    @property
    def is_active(self) -> bool:
        """Return whether a request came a moment ago."""
        return self._clock() - self._recorded_at < _ACTIVE_S

    @property
    def is_idle(self) -> bool:
        """Return whether no request came for a while."""
        return self._clock() - self._recorded_at >= _IDLE_S
