"""What wraps the routes of Litestar: the removal of a proxy's prefix, and the gate and log of ordinary routes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

from litestar import Request
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from nearfar.dialects.kit.body.receive import discard_body
from nearfar.http.access_log import AccessLog
from nearfar.http.gate.gate import RequestGate


class RootPath:
    """Removes the prefix that a proxy in front leaves on each path. Paths without it are passed on as they are."""

    def __init__(self, prefix: str, app: ASGIApp) -> None:
        self._prefix = prefix
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == ScopeType.HTTP and f"{scope['path']}/".startswith(f"{self._prefix}/"):
            scope["path"] = scope["path"][len(self._prefix) :] or "/"
        await self._app(scope, receive, send)


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
                added = self._log.finish(cast("HTTPScope", scope), message["status"])
                message["headers"] = [*message["headers"], *added]
            await send(message)

        self._gate.begin(scope)
        route = scope.get("path_template") or "none"
        tracing = None if route.startswith("/health/") else self._gate.tracing
        method = str(scope.get("method", ""))
        with tracing.request_span(scope["state"], method, route, scope["headers"]) if tracing else nullcontext():
            handler = scope["route_handler"]
            is_public = handler.opt.get("public")
            try:
                if is_public:
                    self._gate.check(scope, is_public=True)
                else:
                    self._gate.admit(scope)
            except Exception as error:  # noqa: BLE001 — the dialect converts it
                request: Request[Any, Any, Any] = Request(scope, receive, send)
                await discard_body(request)
                response = handler.resolve_exception_handlers()[Exception](request, error)
                await response.to_asgi_response(None, request)(scope, receive, send_completed)
                return
            try:
                await next_app(scope, receive, send_completed)
            finally:
                if not is_public:
                    self._gate.leave()
