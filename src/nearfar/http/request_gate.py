"""The request gate: the one middleware around every route. Starts the clock and the span, and checks the request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send
from opentelemetry.trace import use_span

from nearfar.http.drain import Drain
from nearfar.telemetry.tracing import Tracing


class RequestGate(ASGIMiddleware):
    """Passes a request on to its route, unless the server is shutting down or one of ``checks`` raises.

    Routes with the option ``public`` need no check and don't delay a shutdown. Health checks aren't traced.
    """

    def __init__(self, drain: Drain, checks: Sequence[Callable[[Scope], None]], tracing: Tracing | None) -> None:
        self._drain = drain
        self._checks = checks
        self._tracing = tracing

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Check the request and call its route. Raises ShuttingDown, HostNotAllowed, ApiKeyMissing or ApiKeyInvalid."""
        scope["state"]["began"] = time.perf_counter()
        route = scope.get("path_template") or "none"
        span = None
        with ExitStack() as stack:
            if self._tracing and not route.startswith("/health/"):
                span = self._tracing.start_request(str(scope.get("method", "")), route, scope["headers"])
                scope["state"]["span"] = span
                # An error's message may contain text. After an exception the access log ends the span.
                stack.enter_context(use_span(span, record_exception=False, set_status_on_exception=False))
            if not scope["route_handler"].opt.get("public"):
                self._drain.enter()
                stack.callback(self._drain.leave)
                for check in self._checks:
                    check(scope)
            await next_app(scope, receive, send)
        if span is not None:
            span.end()
