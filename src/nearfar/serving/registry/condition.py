"""Waiting until something changes. For state that only the event loop touches; knows nothing of what it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Changes:
    """Wakes everybody who waits, each time it is told.

    An asyncio.Condition would want a lock around every change, and ending a lease must not have to wait for one. None
    is needed: between looking at the state and beginning to wait there is no await, so no change can be missed.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        """Wake everybody, to look at the state again."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the next change, or until the time is over."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=timeout_s)
        finally:
            self._waiting.discard(future)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds."""
        while not condition():
            await self.wait()
