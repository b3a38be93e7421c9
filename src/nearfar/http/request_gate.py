"""The request gate: what happens before a request reaches its route, and when it has left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

from litestar import Request
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from nearfar.http.access_log import AccessLog
from nearfar.http.drain import Drain
from nearfar.telemetry.tracing import Tracing


class RequestGate:
    """Refuses requests while the server is shutting down, and those that one of ``checks`` raises for."""

    def __init__(self, drain: Drain, checks: Sequence[Callable[[Scope], None]], tracing: Tracing | None) -> None:
        self.tracing = tracing
        self._drain = drain
        self._checks = checks

    def start(self, scope: Scope) -> None:
        """Start the request's clock."""
        scope["state"]["began"] = time.perf_counter()

    def admit(self, scope: Scope) -> None:
        """Count a request in. Raises ShuttingDown, HostNotAllowed, ApiKeyMissing or ApiKeyInvalid."""
        self._drain.refuse_if_draining()
        for check in self._checks:
            check(scope)
        self._drain.in_flight += 1

    def leave(self) -> None:
        """Count a request out, once it is answered."""
        self._drain.leave()


class RouteMiddleware(ASGIMiddleware):
    """Passes a request of an ordinary route through the gate, and completes and logs its response.

    Routes with the option ``public`` need no check and don't delay a shutdown. Health checks aren't traced.
    """

    def __init__(self, gate: RequestGate, log: AccessLog) -> None:
        self._gate = gate
        self._log = log

    def __deepcopy__(self, _: object) -> RouteMiddleware:
        """Return itself: Litestar copies a router's middleware deeply, and there is one gate for the whole server."""
        return self

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Answer one request."""

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *self._log.finish(cast("HTTPScope", scope), message["status"]),
                ]
            await send(message)

        self._gate.start(scope)
        route = scope.get("path_template") or "none"
        tracing = None if route.startswith("/health/") else self._gate.tracing
        method = str(scope.get("method", ""))
        with tracing.request_span(scope["state"], method, route, scope["headers"]) if tracing else nullcontext():
            handler = scope["route_handler"]
            if handler.opt.get("public"):
                await next_app(scope, receive, send_completed)
                return
            try:
                self._gate.admit(scope)
            except Exception as error:  # noqa: BLE001 — the dialect converts it
                request: Request[Any, Any, Any] = Request(scope, receive, send)
                response = handler.resolve_exception_handlers()[Exception](request, error)
                await response.to_asgi_response(None, request)(scope, receive, send_completed)
                return
            try:
                await next_app(scope, receive, send_completed)
            finally:
                self._gate.leave()
