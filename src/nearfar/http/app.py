"""Builds the Litestar application from settings. Nothing is opened before its lifespan."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response, Router

from nearfar.batches.answering import AnswerLines
from nearfar.batches.batch_queue import BatchQueue
from nearfar.batches.lines import Limits
from nearfar.batches.storage import Storage
from nearfar.core.errors import RequestError
from nearfar.core.settings import Settings
from nearfar.core.types import Task
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.request import ServerParts
from nearfar.dialects.kit.routing import dialect_for_path, installed_dialects, job_paths
from nearfar.http.access_log import AccessLog
from nearfar.http.batch_lines import LineRoutes
from nearfar.http.connections import Connections
from nearfar.http.gate.auth import KeyGuard, KeyRing
from nearfar.http.gate.cors import Origins
from nearfar.http.gate.drain import Drain
from nearfar.http.gate.gate import RequestGate
from nearfar.http.gate.hosts import host_guard
from nearfar.http.gate.keys import KeyEntry
from nearfar.http.middleware import RootPath, RouteMiddleware
from nearfar.http.openapi.document import Documentation
from nearfar.http.pages import INDEX_PATH, docs, page_file
from nearfar.http.routes import JobRoute, JobRouter
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.registry.names import VendorNames
from nearfar.serving.service import Service
from nearfar.serving.timeouts import Timeouts
from nearfar.serving.uploads import Uploads
from nearfar.telemetry.events import Event, Observer
from nearfar.telemetry.masking import KeyMask
from nearfar.telemetry.metrics import Metrics
from nearfar.telemetry.tracing import Tracing

_ErrorHandler = Callable[[Request[Any, Any, Any], Exception], Response[bytes]]


def create_app(settings: Settings, *, must_open: bool = True, known_keys: tuple[KeyEntry, ...] = ()) -> Litestar:
    """Build the server. Its models open in the background once the lifespan has begun.

    Without ``must_open``, a model that can't be opened doesn't stop the others. ``known_keys`` replace those of a file
    that can't be read.

    The application's state contains ``settings``, ``fleet``, ``service``, ``metrics``, ``drain``, ``access_log``,
    ``batches``, ``lines``, ``key_ring``, ``key_mask``, ``tracing``, ``connections``, ``documentation``, and ``started``
    by the monotonic clock.
    Raises SettingsError for a setting that needs a package that isn't installed, and for keys that can't be read.
    """
    dialects = installed_dialects()
    # Both are built after their observer.
    metrics = Metrics(lambda: fleet.depths(), lambda: connections.counts())  # noqa: PLW0108
    tracing = Tracing(settings.otlp_endpoint, settings.trace_sample_ratio) if settings.otlp_endpoint else None
    observe = _both(metrics.observe, tracing.observe) if tracing else metrics.observe
    fleet = Fleet(settings, _vendor_names(dialects), observe, must_open=must_open)
    drain, ring = Drain(), KeyRing(settings.api_key, settings.api_keys_path, known=known_keys)
    keys = KeyGuard(ring) if ring else None
    hosts = host_guard(settings, requires_key=keys is not None)
    timeouts, uploads = Timeouts(), Uploads(settings.max_upload_bytes)
    service = Service(fleet, observe, settings, timeouts)
    batches = _batch_queue(settings, lambda *block: lines.answer(*block), observe)  # noqa: PLW0108
    server = ServerParts(settings, fleet, service, timeouts, uploads, batches)
    gate = RequestGate(server, drain, hosts=hosts, keys=keys, tracing=tracing)
    origins = Origins(settings.cors_origins)
    mask = KeyMask(settings.api_key, ring.__contains__)
    log = AccessLog(observe, tracing, drain, origins, mask)
    job_routes = [JobRoute(path, gate, log, batches.activity) for path in job_paths(dialects)]
    lines = LineRoutes(job_routes, server)
    app = _build_litestar(settings, dialects, gate, log, job_routes)
    app.state.update({"settings": settings, "fleet": fleet, "service": service, "metrics": metrics, "drain": drain})
    app.asgi_handler = app.state.connections = connections = Connections(
        app.asgi_handler, settings, observe, service.unread, uploads
    )
    app.state.access_log = log
    app.state.update({"key_ring": ring, "key_mask": mask, "tracing": tracing, "batches": batches, "lines": lines})
    app.state.started = time.monotonic()
    app.state.documentation = Documentation(dialects, requires_key=keys is not None)
    return app


def _batch_queue(settings: Settings, answer: AnswerLines, observe: Observer) -> BatchQueue:
    limits = Limits(settings.max_batch_requests, settings.max_batch_requests)
    return BatchQueue(Storage(settings.state_path), answer, limits, observe)


def _build_litestar(
    settings: Settings, dialects: Sequence[Dialect], gate: RequestGate, log: AccessLog, job_routes: Sequence[JobRoute]
) -> Litestar:
    """Build the application with all routes."""
    middleware = RouteMiddleware(gate, log)
    owner = dialect_for_path(INDEX_PATH, dialects)
    app = Litestar(
        route_handlers=[
            *(dialect.router(middleware) for dialect in dialects),
            *(route.handler() for route in job_routes),
            Router(
                "/",
                route_handlers=[page_file, docs],
                middleware=[middleware],
                exception_handlers={Exception: owner.error_response},
                opt={"dialect": owner.name},
            ),
        ],
        exception_handlers={Exception: _by_path(dialects, gate, log)},
        lifespan=[_lifespan],
        request_max_body_size=None,  # bodies are received and limited in dialects/kit
        openapi_config=None,  # bodies are decoded by hand, which Litestar's own document knows nothing of
        logging_config=None,  # the command line configures logging; errors are logged where they are caught
    )
    app.asgi_handler = JobRouter(job_routes, app.asgi_handler, log.origins)
    if settings.root_path:
        app.asgi_handler = RootPath(settings.root_path, app.asgi_handler)
    return app


def _vendor_names(dialects: Sequence[Dialect]) -> VendorNames:
    defaults: dict[str, Task] = {}
    open_models: dict[str, Sequence[str]] = {}
    for dialect in dialects:
        defaults |= dialect.vendor_models
        open_models |= dialect.open_models
    return VendorNames(defaults, open_models)


def _both(first: Observer, second: Observer) -> Observer:
    def observe(event: Event) -> None:
        first(event)
        second(event)

    return observe


@asynccontextmanager
async def _lifespan(app: Litestar) -> AsyncIterator[None]:
    async with AsyncExitStack() as closing:  # whatever one of them raises, the others are closed
        if app.state.tracing:
            closing.push_async_callback(asyncio.to_thread, app.state.tracing.close)
        closing.callback(app.state.service.close)
        closing.push_async_callback(app.state.fleet.close)
        app.state.fleet.start()
        closing.push_async_callback(app.state.batches.close)
        app.state.batches.start()
        yield


def _by_path(dialects: Sequence[Dialect], gate: RequestGate, log: AccessLog) -> _ErrorHandler:
    """Build the handler of requests without a route (404, 405), which answers as the dialect that owns the path.

    Such requests pass no middleware, so they are checked and logged here: routes are not disclosed without a key.
    """

    def answer(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
        state: dict[str, Any] = request.scope["state"]
        state.setdefault("headers", dict(request.scope["headers"]))
        try:
            gate.check(request.scope)
        except RequestError as refusal:
            exc = refusal
        dialect = dialect_for_path(request.scope["path"], dialects)
        state["dialect"] = dialect.name
        response = dialect.error_response(request, exc)
        for name, value in log.finish(request.scope, response.status_code or 500):
            response.headers[name.decode()] = value.decode()
        return response

    return answer
