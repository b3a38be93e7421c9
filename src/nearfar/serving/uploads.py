"""Bounds the bytes of request bodies that are arriving, and their time where connections are scarce. No HTTP.

A body is small, or has its whole size reserved before more of it is read: bodies that began can always end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from nearfar.core.errors import BodyTimeout
from nearfar.serving.timeouts import CancelScope

SMALL_UPLOAD = 262_144  # bytes, which nothing is reserved for
_CHECK_S = 0.1
# While others wait, a body ends if nothing of it arrives for so long, or it is slower than this on average. Guesses.
_STALLED_S = 2.0
_MIN_BYTES_PER_S = 65_536


class Upload:
    """One large body that is arriving."""

    def __init__(self, size: int, received: int, scope: CancelScope, now: float) -> None:
        self.size = size
        self.scope = scope
        self.began = self.progressed = now
        self.received = received

    def is_stalled(self, now: float) -> bool:
        """Return whether it arrives so slowly that others needn't wait for it."""
        age_s = now - self.began
        return now - self.progressed > _STALLED_S or (age_s > _STALLED_S and self.received < age_s * _MIN_BYTES_PER_S)


class Uploads:
    """The large bodies that are arriving, of at most ``max_bytes`` in all, or a single one. Others wait in order."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.reserved_bytes = 0
        self.arrivals: dict[CancelScope, float] = {}  # the scopes of arriving bodies; since when, the oldest first
        self._max_bytes = max_bytes
        self.clock = clock
        self._arriving: set[Upload] = set()
        self._turn = asyncio.Lock()

    async def reserve(self, size: int, received: int, scope: CancelScope) -> Upload:
        """Wait for room for a body. Those that stall meanwhile are cancelled, with a BodyTimeout."""
        async with self._turn:
            while self._arriving and self.reserved_bytes + size > self._max_bytes:
                self._end_stalled()
                await asyncio.sleep(_CHECK_S)
            upload = Upload(size, received, scope, self.clock())
            self._arriving.add(upload)
            self.reserved_bytes += size
        return upload

    def record(self, upload: Upload, received: int) -> None:
        """Record how many bytes have arrived."""
        upload.received = received
        upload.progressed = self.clock()

    def release(self, upload: Upload) -> None:
        """Free the room of a body that has arrived, or that will not."""
        self._arriving.discard(upload)
        self.reserved_bytes -= upload.size

    def end_slow(self, most: int) -> None:
        """End the oldest bodies that have been arriving for a while: others need their connections."""
        now = self.clock()
        slow = [scope for scope, began in self.arrivals.items() if now - began > _STALLED_S]
        for scope in slow[:most]:
            del self.arrivals[scope]
            scope.error = BodyTimeout("the body arrives too slowly while few more connections may be open")
            scope.cancel()

    def _end_stalled(self) -> None:
        now = self.clock()
        for upload in [upload for upload in self._arriving if upload.is_stalled(now)]:
            self._arriving.discard(upload)  # its room is free once its task has ended
            upload.scope.error = BodyTimeout("the body arrives too slowly while others wait; send it again, faster")
            upload.scope.cancel()
