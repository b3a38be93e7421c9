"""Shutting down without losing a request: new ones are refused, those in flight finish, within a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from litestar.middleware import ASGIMiddleware

from nearfar.errors import Draining

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send


class Drain(ASGIMiddleware):
    """Counts the requests in flight, and refuses new ones once ``begin`` was called. One for the whole server."""

    exclude_opt_key = "public"

    def __init__(self) -> None:
        self.in_flight = 0
        self._began = False
        self._empty = asyncio.Event()

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on. Raises Draining on the way down."""
        self.refuse()
        self.in_flight += 1
        try:
            await next_app(scope, receive, send)
        finally:
            self.in_flight -= 1
            if self._began and not self.in_flight:
                self._empty.set()

    def refuse(self) -> None:
        """Raise Draining when the server is on its way down."""
        if self._began:
            raise Draining("the server is shutting down; try again shortly", retry_after_s=1)

    async def begin(self, deadline_s: float) -> int:
        """Refuse new requests and wait for those in flight; give the number still there at the deadline."""
        self._began = True
        if self.in_flight:
            try:
                await asyncio.wait_for(self._empty.wait(), deadline_s)
            except TimeoutError:
                return self.in_flight
        return 0
