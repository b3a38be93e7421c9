"""Graceful shutdown: requests in flight finish within a timeout; new ones are refused, or end their connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from nearfar.core.errors import ShuttingDown

_PROGRESS_EVERY_S = 3.0


class Drain:
    """Counts the requests in flight and refuses new ones after ``begin``. One for the whole server."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.is_draining = False  # every answer then ends its connection
        self._has_successor = False
        self._empty = asyncio.Event()

    def notify(self) -> None:
        """Notice during a shutdown that ``in_flight`` has changed."""
        if not self.in_flight:
            self._empty.set()

    def refuse_if_draining(self) -> None:
        """Raise ShuttingDown during a shutdown, unless another worker serves on."""
        if self.is_draining and not self._has_successor:
            raise ShuttingDown("the server is shutting down; try again shortly", retry_after_s=1)

    def hand_over(self) -> None:
        """Close connections after their next answer, and refuse nothing: another worker accepts new connections."""
        self.is_draining = self._has_successor = True

    async def begin(
        self,
        timeout_s: float,
        on_progress: Callable[[int, float], None] = lambda *_: None,
        *,
        progress_every_s: float = _PROGRESS_EVERY_S,
    ) -> int:
        """Refuse new requests and wait for those in flight. Returns how many remain at the timeout.

        ``on_progress`` is called at once and then periodically, with the requests in flight and the seconds left.
        """
        self.is_draining = True
        self._empty.clear()  # it may be set since an earlier moment without requests
        deadline = time.monotonic() + timeout_s
        while self.in_flight and (left_s := deadline - time.monotonic()) > 0:
            on_progress(self.in_flight, left_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), min(progress_every_s, left_s))
        return self.in_flight
