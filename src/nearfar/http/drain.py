"""Going without losing a request: those in flight finish, within a deadline. New ones are refused, or are the last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from litestar.middleware import ASGIMiddleware

from nearfar.core.errors import ShuttingDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.types import ASGIApp, Receive, Scope, Send

_TELL_S = 3.0  # between two words of what is still in flight


class Drain(ASGIMiddleware):
    """Counts the requests in flight, and refuses new ones once ``begin`` was called. One for the whole server.

    ``is_leaving`` is set when no answer should be followed by another on its connection.
    """

    exclude_opt_key = "public"

    def __init__(self) -> None:
        self.in_flight = 0
        self.is_leaving = False
        self._is_followed = False
        self._empty = asyncio.Event()

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on. Raises ShuttingDown on the way down."""
        self.refuse()
        self.in_flight += 1
        try:
            await next_app(scope, receive, send)
        finally:
            self.in_flight -= 1
            if self.is_leaving and not self.in_flight:
                self._empty.set()

    def refuse(self) -> None:
        """Raise ShuttingDown when the server is on its way down."""
        if self.is_leaving and not self._is_followed:
            raise ShuttingDown("the server is shutting down; try again shortly", retry_after_s=1)

    def hand_over(self) -> None:
        """Answer whatever comes still, and refuse nothing: another server takes who asks anew."""
        self.is_leaving = self._is_followed = True

    async def begin(
        self, deadline_s: float, tell: Callable[[int, float], None] = lambda *_: None, *, every_s: float = _TELL_S
    ) -> int:
        """Refuse new requests and wait for those in flight; give the number still there at the deadline.

        ``tell`` hears how many there are and how many seconds they have left, at first and then every so often.
        """
        self.is_leaving = True
        deadline = time.monotonic() + deadline_s
        while self.in_flight and (left_s := deadline - time.monotonic()) > 0:
            tell(self.in_flight, left_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), min(every_s, left_s))
        return self.in_flight
