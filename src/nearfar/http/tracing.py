"""Traces of requests, sent to an OpenTelemetry collector over OTLP/HTTP. Off unless an endpoint is set.

A request is a span, under the caller's own trace where it sent one, with a span below it for each part: tokenise,
queue, run, render. A batch serves many requests, so it is under none of them: its span links to all of theirs, and
the ``run`` of each links back. No span has a text, a key or a query string.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from litestar.middleware import ASGIMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio
from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nearfar.core.errors import SettingsError

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send
    from opentelemetry.trace import Span

    from nearfar.telemetry.events import BatchRecord, CloseReason, JobRecord, LoadRecord, RequestRecord


_EXPORT_S = 2.0  # then a batch of spans is given up, so that a dead collector doesn't hold up the end
_LIMITS = SpanLimits(max_links=256)  # as many requests as a lane looks at for one batch; 128 by default
_SERVER_FAULT = 500


class Tracing(ASGIMiddleware):
    """Makes a span of every request but health checks, and as an observer those of its parts and of batches.

    ``share`` of the requests are traced whose callers didn't decide that by a ``traceparent`` of their own.
    """

    def __init__(self, endpoint: str, share: float) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise SettingsError('otlp_endpoint: traces need more packages; pip install "nearfar[tracing]"') from error
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
        processor = BatchSpanProcessor(exporter)
        resource = Resource({"service.name": "nearfar"})
        requests = TracerProvider(ParentBasedTraceIdRatio(share), resource, shutdown_on_exit=False, span_limits=_LIMITS)
        # A batch is traced when one of its requests is, so its own trace isn't left to chance.
        batches = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=_LIMITS)
        self._providers = (requests, batches)
        for provider in self._providers:
            provider.add_span_processor(processor)
        self._requests, self._batches = requests.get_tracer("nearfar"), batches.get_tracer("nearfar")
        self._callers = TraceContextTextMapPropagator()

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on within its span."""
        route = scope.get("path_template") or "none"
        if route.startswith("/health/"):
            await next_app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = str(scope.get("method", ""))
        span = self._requests.start_span(
            f"{method} {route}",
            context=self._callers.extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        )
        scope["state"]["span"] = span
        with use_span(span, record_exception=False, set_status_on_exception=False):  # an error's sentence may hold text
            await next_app(scope, receive, send)
        span.end()  # where something was raised, ``answered`` ends it: the refusal is answered further out

    def answered(self, scope: Scope, record: RequestRecord) -> None:
        """Note on the request's span how it was answered, and make a span of the answer's making."""
        state: dict[str, Any] = scope["state"]
        span: Span | None = state.get("span")
        if span is None:
            return
        if span.is_recording():
            span.set_attributes(
                {
                    "http.response.status_code": record.status,
                    "nearfar.dialect": record.dialect,
                    "nearfar.request_id": state["request_id"],
                    **{f"nearfar.{name}": value for name, value in state.get("done", {}).items()},
                }
            )
            if record.status >= _SERVER_FAULT:
                span.set_status(StatusCode.ERROR)
            if record.render_s is not None:
                now = time.time_ns()
                self._part("render", now - _ns(record.render_s), now)
        if get_current_span() is not span:
            span.end()

    def batch_done(self, record: BatchRecord) -> None:
        """Make a span of a forward, linked to those of its requests; none where no request of it is traced."""
        traced = [watch for watch in record.watches if watch.span.trace_flags.sampled]
        if not traced:
            return
        now = time.time_ns()
        span = self._batches.start_span(
            "batch",
            links=[Link(watch.span) for watch in traced],
            start_time=now - _ns(record.run_s),
            attributes={
                "nearfar.model": record.model,
                "nearfar.rows": record.rows,
                "nearfar.requests": record.requests,
                "nearfar.tokens": record.tokens,
                "nearfar.padded_tokens": record.padded_tokens,
            },
        )
        if record.failed:
            span.set_status(StatusCode.ERROR)
        span.end(now)
        for watch in traced:
            watch.batches.append(span.get_span_context())

    def job_done(self, record: JobRecord) -> None:
        """Make a span of each part of the present request's job that it came to, and say what it failed of."""
        request = get_current_span()
        if not request.is_recording():
            return
        request.set_attributes({"nearfar.task": record.task, "nearfar.inputs": record.inputs})
        if record.failure:
            request.set_attribute("error.type", record.failure.__name__)
        if not record.timings or not record.watch:
            return
        times = record.timings
        at = time.time_ns() - _ns(times.total_s)
        for name, seconds in (("tokenise", times.tokenise_s), ("queue", times.queue_s), ("run", times.run_s)):
            if seconds:
                self._part(name, at, at + _ns(seconds), [Link(of) for of in record.watch.batches if name == "run"])
            at += _ns(seconds)

    def _part(self, name: str, began: int, ended: int, links: list[Link] | None = None) -> None:
        self._requests.start_span(name, links=links, start_time=began).end(ended)

    def request_done(self, record: RequestRecord) -> None:
        """Make nothing: ``answered`` has the request's span."""

    def tokens_counted(self, model: str, tokens: int, truncated: int) -> None:
        """Make nothing: a request's own span has its tokens."""

    def model_loaded(self, record: LoadRecord) -> None:
        """Make nothing: no request is shown by it."""

    def model_closed(self, model: str, reason: CloseReason) -> None:
        """Make nothing: no request is shown by it."""

    def close(self) -> None:
        """Send what is left, and stop."""
        for provider in self._providers:
            provider.shutdown()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
