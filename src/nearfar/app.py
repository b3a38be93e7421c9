"""Settings → a Litestar application. Builds and wires; opens nothing before its lifespan."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from litestar import Litestar, Request, Response
from litestar.config.cors import CORSConfig
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware

from nearfar.auth import KeyGuard
from nearfar.dialects import dialect_of, installed_dialects, request_id
from nearfar.dialects.sharing import shared_router
from nearfar.drain import Drain
from nearfar.errors import RequestError
from nearfar.hosts import host_guard
from nearfar.keys import KeyRing
from nearfar.openapi import Documentation
from nearfar.serving.fleet import Fleet
from nearfar.serving.observe import Metrics, RequestRecord
from nearfar.serving.service import Service
from nearfar.serving.tei_metrics import TeiMetrics
from nearfar.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from nearfar.config import Settings
    from nearfar.dialects import Dialect
    from nearfar.hosts import HostGuard
    from nearfar.types import Task

    _ErrorHandler = Callable[[Request[Any, Any, Any], Exception], Response[bytes]]

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_EXPOSED = ("x-request-id", "x-nearfar-truncated-tokens", "retry-after")  # what pages may read
_access = logging.getLogger("nearfar.access")


def create_app(settings: Settings) -> Litestar:
    """Build the server. Its models open in the background once the lifespan has begun.

    The application's state holds ``settings``, ``fleet``, ``service``, ``metrics``, ``drain``, ``tracing``,
    ``documentation`` and ``started``, by the monotonic clock.
    Raises ConfigError for a setting that needs a package that isn't installed, and for keys that can't be read.
    """
    dialects = installed_dialects()
    vendor_names: dict[str, Task] = {}
    for dialect in dialects:
        vendor_names |= dialect.vendor_models
    metrics = (TeiMetrics if settings.tei_metrics else Metrics)(lambda: fleet.depths())  # noqa: PLW0108 — the fleet comes after its observer
    fleet = Fleet(settings, vendor_names, metrics)
    drain = Drain()
    ring = KeyRing(settings.api_key, settings.api_keys_file)
    guard = KeyGuard(ring) if ring else None
    hosts = host_guard(settings, asks_for_key=guard is not None)
    checks = [check for check in (hosts, guard) if check]
    tracing = Tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None
    app = Litestar(
        route_handlers=[*(dialect.router() for dialect in dialects), shared_router(dialects)],
        exception_handlers={Exception: _by_path(dialects, checks)},
        middleware=[_Clock(), *([tracing.middleware] if tracing else []), drain, *checks],
        before_send=[_signing(metrics)],
        lifespan=[_lifespan],
        request_max_body_size=settings.max_body_bytes,
        cors_config=_cors(settings.cors_origins),
        openapi_config=None,  # bodies are decoded by hand, which Litestar's own document knows nothing of
        logging_config=None,  # whoever runs the application configures logging; errors are logged where they are met
    )
    service = Service(fleet, metrics, settings.deadline_s)
    app.state.update({"settings": settings, "fleet": fleet, "service": service, "metrics": metrics, "drain": drain})
    app.state.tracing = tracing
    app.state.started = time.monotonic()
    app.state.documentation = Documentation(dialects, asks_for_key=guard is not None)
    return app


@asynccontextmanager
async def _lifespan(app: Litestar) -> AsyncIterator[None]:
    async with AsyncExitStack() as closing:  # whatever one of them raises, the others are closed
        if app.state.tracing:
            closing.push_async_callback(asyncio.to_thread, app.state.tracing.close)
        closing.callback(app.state.metrics.close)
        closing.callback(app.state.service.close)
        closing.push_async_callback(app.state.fleet.close)
        app.state.fleet.start()
        yield


def _by_path(dialects: Sequence[Dialect], checks: Sequence[HostGuard | KeyGuard]) -> _ErrorHandler:
    """Answer for requests that no route took (404, 405) in the shape of the dialect they were meant for.

    They have passed no middleware, so they are checked here: without a key nobody learns which routes there are.
    """

    def answer(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
        try:
            for check in checks:
                check.check(request.scope)
        except RequestError as refusal:
            exc = refusal
        return dialect_of(request.scope["path"], dialects).answer_error(request, exc)

    return answer


def _cors(origins: Sequence[str]) -> CORSConfig | None:
    """Let pages of these origins ask and read the answers; None, for no page at all, is the default."""
    if not origins:
        return None
    return CORSConfig(allow_origins=[*origins], allow_methods=["GET", "POST"], expose_headers=[*_EXPOSED])


class _Clock(ASGIMiddleware):
    """Notes when a request began."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        scope["state"]["began"] = time.perf_counter()
        await next_app(scope, receive, send)


def _signing(metrics: Metrics) -> Callable[[Message, Scope], Awaitable[None]]:
    """Put the request's id on every answer, errors too, and note the request: one line, without its text."""

    async def sign(message: Message, scope: Scope) -> None:
        if message["type"] != "http.response.start" or scope["type"] != ScopeType.HTTP:
            return
        said = request_id(scope)
        message["headers"] = [*message["headers"], (b"x-request-id", said.encode())]
        state: dict[str, Any] = scope["state"]
        now = time.perf_counter()
        seconds = now - state.get("began", now)  # a request that no route took has no beginning, and takes no time
        method, status = scope["method"], message["status"]
        record = RequestRecord(
            route=scope.get("path_template") or "none",
            method=method if method in _METHODS else "other",  # callers may invent as many as they like
            status=status,
            seconds=seconds,
        )
        metrics.request_done(record)
        fields = {"request_id": said, "method": method, "path": scope["path"][:200], "status": status}
        _access.info("request", extra={"fields": {**fields, "ms": round(seconds * 1000, 1), **state.get("done", {})}})

    return sign
