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
    """Times out scopes that are due, at most ``interval_s`` later. Used on one event loop only."""

    def __init__(self, interval_s: float = _INTERVAL_S) -> None:
        self._interval_s = interval_s
        self.pending: dict[CancelScope, float] = {}  # when each is due
        self.is_ticking = False

    def start(self) -> None:
        """Start to check what is pending, until nothing is."""
        self.is_ticking = True
        asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        overdue = [scope for scope, due in self.pending.items() if due <= now]
        for scope in overdue:
            del self.pending[scope]
        self.is_ticking = False
        if self.pending:
            self.start()
        for scope in overdue:
            scope.time_out()


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
        if timeouts := self._timeouts:
            timeouts.pending[self] = time.monotonic() + self._after_s
            if not timeouts.is_ticking:
                timeouts.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> None:
        if self._timeouts:
            self._timeouts.pending.pop(self, None)
        if self._watching:
            self._watching.cancel()
        own = self._is_cancelled and self._task.uncancel() <= self._cancelled_before
        if own and kind is asyncio.CancelledError:
            raise (self.error or TimeoutError()) from raised

    def cancel(self) -> None:
        """Cancel the block."""
        self._is_cancelled = True
        self._task.cancel()

    def time_out(self) -> None:
        """Cancel the block, or start to watch for a reason to."""
        if self._watch:
            self._watching = asyncio.create_task(self._watch(self))
        else:
            self.cancel()
