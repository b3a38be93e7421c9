"""The request gate: the one middleware around every route. Starts the clock and the span, and checks the request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from litestar.middleware import ASGIMiddleware
from opentelemetry.trace import use_span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from litestar.types import ASGIApp, Receive, Scope, Send

    from nearfar.http.drain import Drain
    from nearfar.telemetry.tracing import Tracing


class RequestGate(ASGIMiddleware):
    """Passes a request on to its route, unless the server is shutting down or one of ``checks`` raises.

    Routes with the option ``public`` need no check and don't delay a shutdown.
    """

    def __init__(self, drain: Drain, checks: Sequence[Callable[[Scope], None]], tracing: Tracing | None) -> None:
        self._drain = drain
        self._checks = checks
        self._tracing = tracing

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on. Raises ShuttingDown, HostNotAllowed, ApiKeyMissing or ApiKeyInvalid."""
        scope["state"]["began"] = time.perf_counter()
        route = scope.get("path_template") or "none"
        if self._tracing is None or route.startswith("/health/"):
            await self._pass_on(scope, receive, send, next_app)
            return
        span = self._tracing.start_request(str(scope.get("method", "")), route, scope["headers"])
        scope["state"]["span"] = span
        with use_span(span, record_exception=False, set_status_on_exception=False):  # an error's message may hold text
            await self._pass_on(scope, receive, send, next_app)
        span.end()  # after an exception the access log ends it: the error is answered further out

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        if scope["route_handler"].opt.get("public"):
            await next_app(scope, receive, send)
            return
        self._drain.enter()
        try:
            for check in self._checks:
                check(scope)
            await next_app(scope, receive, send)
        finally:
            self._drain.leave()
