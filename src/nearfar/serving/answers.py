"""Bounds the bytes of large answers that clients haven't read yet. No HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LARGE_ANSWER = 32_768  # numbers; more take half a megabyte
_RENDERED_AT_ONCE = 2  # they count once they are rendered


class UnreadAnswers:
    """Counts unread bytes. Over ``max_bytes``, no other large answer is rendered until clients have read."""

    def __init__(self, max_bytes: int) -> None:
        self.unread_bytes = 0
        self.max_bytes = max_bytes
        self._turns = asyncio.Semaphore(_RENDERED_AT_ONCE)
        self._changed = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether no other answer has room."""
        return self.unread_bytes > self.max_bytes

    def add(self, size: int) -> None:
        """Count an answer, or with a negative size remove it."""
        self.unread_bytes += size
        self._changed.set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for room for a large answer, which the block renders."""
        async with self._turns:
            while self.is_full:
                self._changed.clear()
                await self._changed.wait()
            yield
