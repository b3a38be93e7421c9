"""Whether requests are being answered, which batches wait for."""

from __future__ import annotations

import time

_ACTIVE_S = 0.1  # after the last request: clients that wait for each answer send the next one within that


class Activity:
    """Knows when the last request came."""

    def __init__(self) -> None:
        self._active_until = 0.0

    def record(self) -> None:
        """Record a request."""
        self._active_until = time.monotonic() + _ACTIVE_S

    @property
    def is_active(self) -> bool:
        """Return whether a request came a moment ago."""
        return time.monotonic() < self._active_until
