"""Timeouts of requests, checked together every 20 ms. No HTTP.

A request sets two or three, and nearly all are removed before they are due. A dictionary's entry for each costs a
fraction of a timer of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

_INTERVAL_S = 0.02


class Timeouts:
    """Runs callbacks once their delay has passed, at most ``interval_s`` later. Used on one event loop only."""

    def __init__(self, interval_s: float = _INTERVAL_S) -> None:
        self._interval_s = interval_s
        self.pending: dict[object, tuple[float, Callable[[], None]]] = {}  # when each is due
        self._is_ticking = False

    def add(self, after_s: float, callback: Callable[[], None]) -> object:
        """Call back after so many seconds, unless the returned key is removed from ``pending`` before."""
        key = object()
        self.pending[key] = (time.monotonic() + after_s, callback)
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(self._interval_s, self._tick)
        return key

    def _tick(self) -> None:
        now = time.monotonic()
        overdue = [key for key, (due, _) in self.pending.items() if due <= now]
        callbacks = [self.pending.pop(key)[1] for key in overdue]
        self._is_ticking = bool(self.pending)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(self._interval_s, self._tick)
        for callback in callbacks:
            callback()


class CancelScope:
    """``cancel`` cancels the ``with`` block, which then raises ``error``, or TimeoutError without one.

    With ``timeouts`` it is cancelled after so many seconds; or ``watch`` is started then, and runs until the block
    ends. Like asyncio.timeout, it passes on a cancellation from elsewhere.
    """

    def __init__(
        self,
        timeouts: Timeouts | None = None,
        after_s: float = 0.0,
        watch: Callable[[CancelScope], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.error: Exception | None = None
        self._timeouts = timeouts
        self._after_s = after_s
        self._watch = watch
        self._watching: asyncio.Task[None] | None = None
        self._is_cancelled = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a cancel scope needs a task to cancel")
        self._task = task
        self._cancelled_before = task.cancelling()
        if self._timeouts:
            self._key = self._timeouts.add(self._after_s, self._start_watching if self._watch else self.cancel)
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> None:
        if self._timeouts:
            self._timeouts.pending.pop(self._key, None)
        if self._watching:
            self._watching.cancel()
        own = self._is_cancelled and self._task.uncancel() <= self._cancelled_before
        if own and kind is asyncio.CancelledError:
            raise (self.error or TimeoutError()) from raised

    def cancel(self) -> None:
        """Cancel the block."""
        self._is_cancelled = True
        self._task.cancel()

    def _start_watching(self) -> None:
        if self._watch:
            self._watching = asyncio.create_task(self._watch(self))
