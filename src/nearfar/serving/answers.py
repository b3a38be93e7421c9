"""Bounds the bytes of large answers that clients haven't read yet, and of results that become such. No HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nearfar.core.errors import Overloaded

LARGE_ANSWER = 32_768  # numbers; more take half a megabyte
_RENDERED_AT_ONCE = 2  # they count once they are rendered
# Of the limit, for results that are computed or wait to be rendered. Their answers are five times larger.
_WAITING = 0.25
_BYTES = 4  # of a number
_RETRY_AFTER_S = 5.0


class UnreadAnswers:
    """Counts the bytes of large answers: results that wait to be rendered, and what clients haven't read.

    A quarter of ``limit`` is for results, and ``max_bytes`` is the rest. While more is unread, no large answer is
    rendered; one that has waited ``timeout_s`` is refused.
    """

    def __init__(self, limit: int, timeout_s: float) -> None:
        self.unread_bytes = self.waiting_bytes = 0
        self.max_bytes = int(limit * (1 - _WAITING))
        self._max_waiting = limit - self.max_bytes
        self._timeout_s = timeout_s
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
    async def room_for(self, numbers: int) -> AsyncIterator[None]:
        """Wait for room for a large answer of so many numbers, which the block renders. Raises Overloaded without."""
        reserved = self.reserve(numbers)
        try:
            async with asyncio.timeout(self._timeout_s) as waiting, self._turns:
                while self.is_full:
                    self._changed.clear()
                    await self._changed.wait()
                waiting.reschedule(None)
                yield
        except TimeoutError as error:
            raise self._overloaded() from error
        finally:
            self.release(reserved)

    def reserve(self, numbers: int) -> int:
        """Count the results of a large answer, and return their bytes. Raises Overloaded."""
        size = numbers * _BYTES
        if self.waiting_bytes and self.waiting_bytes + size > self._max_waiting:
            raise self._overloaded()
        self.waiting_bytes += size
        return size

    def release(self, size: int) -> None:
        """Count results no more."""
        self.waiting_bytes -= size

    def _overloaded(self) -> Overloaded:
        message = "too many large answers wait for their clients to read them (max_unread_bytes)"
        return Overloaded(message, _RETRY_AFTER_S)
