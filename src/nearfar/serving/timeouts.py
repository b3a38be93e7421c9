"""Timeouts of requests, checked together every 20 ms. No HTTP.

A request sets two or three, and nearly all are removed before they are due. A dictionary's entry for each costs a
fraction of a timer of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_INTERVAL_S = 0.02


class CancelScope:
    """``cancel`` cancels the ``with`` block, which then raises ``error``, or TimeoutError without one.

    Like asyncio.timeout, it passes on a cancellation that isn't its own.
    """

    __slots__ = ("_cancelled_before", "_is_cancelled", "_task", "error")

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._is_cancelled = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a cancel scope needs a task to cancel")
        self._task = task
        self._cancelled_before = task.cancelling()
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> None:
        own = self._is_cancelled and self._task.uncancel() <= self._cancelled_before
        if own and kind is asyncio.CancelledError:
            raise (self.error or TimeoutError()) from raised

    def cancel(self) -> None:
        """Cancel the block."""
        self._is_cancelled = True
        self._task.cancel()


class Timeouts:
    """Runs callbacks once their delay has passed, at most ``interval_s`` later. Used on one event loop only."""

    def __init__(self, interval_s: float = _INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._pending: dict[object, tuple[float, Callable[[], None]]] = {}
        self._is_ticking = False

    def add(self, after_s: float, callback: Callable[[], None]) -> object:
        """Call back after so many seconds, unless the returned key is passed to ``discard`` before."""
        key = object()
        self._pending[key] = (time.monotonic() + after_s, callback)
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(self._interval_s, self._tick)
        return key

    def discard(self, key: object) -> None:
        """Remove a callback, if it isn't called yet."""
        self._pending.pop(key, None)

    def timeout(self, after_s: float) -> Timeout:
        """Return a context manager that raises TimeoutError after so many seconds, like asyncio.timeout."""
        return Timeout(self, after_s)

    def _tick(self) -> None:
        now = time.monotonic()
        overdue = [key for key, (due, _) in self._pending.items() if due <= now]
        callbacks = [self._pending.pop(key)[1] for key in overdue]
        self._is_ticking = bool(self._pending)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(self._interval_s, self._tick)
        for callback in callbacks:
            callback()


class Timeout(CancelScope):
    """Cancels its block after some seconds."""

    __slots__ = ("_after_s", "_key", "_timeouts")

    def __init__(self, timeouts: Timeouts, after_s: float) -> None:
        super().__init__()
        self._timeouts = timeouts
        self._after_s = after_s

    def __enter__(self) -> Self:
        self._key = self._timeouts.add(self._after_s, self.cancel)
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> None:
        self._timeouts.discard(self._key)
        super().__exit__(kind, raised, _)
