"""Traces of requests, sent to an OpenTelemetry collector over OTLP/HTTP. No HTTP framework.

A request is a span, in the client's own trace if it sent one. Its child spans are the parts: tokenize, queue,
inference, render. A forward serves many requests, so its span is a child of none: it links to the span of each
request, and the ``inference`` span of each links back. One of OpenAI's
batches is a span of its own. No span contains a text, a key or a query string.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nearfar.core.errors import SettingsError
from nearfar.telemetry.events import BatchEnded, Event, ForwardDone, JobDone, RequestDone

_EXPORT_TIMEOUT_S = 2.0  # then spans are dropped, so that an unreachable collector doesn't delay the shutdown
_LIMITS = SpanLimits(max_links=256)  # as many requests as a lane considers for one batch; 128 by default
_SERVER_ERROR = 500
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # clients may send any other word


class Tracing:
    """Turns requests, jobs and forwards into spans.

    ``sample_ratio`` is the part of requests that are traced, of those without a ``traceparent`` header that decides it.
    """

    def __init__(self, endpoint: str, sample_ratio: float) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise SettingsError('otlp_endpoint: traces need more packages; pip install "nearfar[tracing]"') from error
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
        processor = BatchSpanProcessor(exporter)
        resource = Resource({"service.name": "nearfar"})
        sampler = ParentBasedTraceIdRatio(sample_ratio)
        requests = TracerProvider(sampler, resource, shutdown_on_exit=False, span_limits=_LIMITS)
        # A forward is traced when one of its requests is, so its own trace isn't sampled again.
        forwards = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=_LIMITS)
        self._providers = (requests, forwards)
        for provider in self._providers:
            provider.add_span_processor(processor)
        self._requests, self._forwards = requests.get_tracer("nearfar"), forwards.get_tracer("nearfar")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request_span(
        self, state: dict[str, Any], method: str, route: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> Iterator[None]:
        """Trace a request in the block, as ``state["span"]``; its parent is the span that the headers name."""
        method = method if method in METHODS else "_OTHER"  # as OpenTelemetry names it
        # Not tracestate: its values are any words, which the collector would store.
        parent = dict(headers).get(b"traceparent", b"").decode("latin-1")
        with self._requests.start_as_current_span(
            f"{method} {route}",
            context=self._propagator.extract({"traceparent": parent}),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
            record_exception=False,  # an error's message may contain text
            set_status_on_exception=False,
        ) as state["span"]:
            yield

    def finish_request(self, span: Span, event: RequestDone, attributes: Mapping[str, str | int]) -> None:
        """Record the outcome on a request's span, and add the span of the rendering."""
        if not span.is_recording():
            return
        span.set_attributes(
            {
                "http.response.status_code": event.status,
                "nearfar.dialect": event.dialect,
                **{f"nearfar.{name}": value for name, value in attributes.items()},
            }
        )
        if event.status >= _SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
        if event.render_s is not None:
            now = time.time_ns()
            self._add_part("render", now - _ns(event.render_s), now)

    def observe(self, event: Event) -> None:
        """Turn a batch, and a forward or a job of a traced request, into spans; ignore other events."""
        if isinstance(event, ForwardDone):
            self._forward_done(event)
        elif isinstance(event, JobDone):
            self._job_done(event)
        elif isinstance(event, BatchEnded):
            self._batch_ended(event)

    def close(self) -> None:
        """Send the remaining spans, and stop."""
        for provider in self._providers:
            provider.shutdown()

    def _forward_done(self, event: ForwardDone) -> None:
        traced = [stopwatch for stopwatch in event.stopwatches if stopwatch.span.trace_flags.sampled]
        if not traced:
            return
        now = time.time_ns()
        span = self._forwards.start_span(
            "forward",
            links=[Link(stopwatch.span) for stopwatch in traced],
            start_time=now - _ns(event.duration_s),
            attributes={
                "nearfar.model": event.model,
                "nearfar.rows": event.rows,
                "nearfar.requests": event.requests,
                "nearfar.tokens": event.tokens,
                "nearfar.padded_tokens": event.padded_tokens,
            },
        )
        if event.failed:
            span.set_status(StatusCode.ERROR)
        span.end(now)
        for stopwatch in traced:
            stopwatch.forwards.append(span.get_span_context())

    def _job_done(self, event: JobDone) -> None:
        """Add a span for each part of the current request's job that took place."""
        request = get_current_span()
        if not request.is_recording():
            return
        request.set_attributes({"nearfar.task": event.task, "nearfar.inputs": event.inputs})
        if event.error_type:
            request.set_attribute("error.type", event.error_type.__name__)
        if not event.timings or not event.stopwatch:
            return
        timings = event.timings
        links = {"inference": [Link(forward) for forward in event.stopwatch.forwards]}
        since_start_s = timings.total_s + (time.perf_counter() - timings.taken_at)
        started = time.time_ns() - _ns(since_start_s)
        parts = {"tokenize": timings.tokenize_s, "queue": timings.queue_s, "inference": timings.inference_s}
        for name, seconds in parts.items():
            if seconds:
                self._add_part(name, started, started + _ns(seconds), links.get(name))
            started += _ns(seconds)

    def _batch_ended(self, event: BatchEnded) -> None:
        """Add a span from a batch's creation to its end, which may have several processes of this server between."""
        span = self._requests.start_span(
            "batch",
            context=Context(),
            start_time=_ns(event.created_at),
            attributes={
                "nearfar.batch.id": event.id,
                "nearfar.batch.endpoint": event.endpoint,
                "nearfar.batch.status": event.status,
                "nearfar.batch.requests": event.requests,
                "nearfar.batch.completed": event.completed,
                "nearfar.batch.failed": event.failed,
                "nearfar.tokens": event.tokens,
            },
        )
        if event.status in {"failed", "expired"}:
            span.set_status(StatusCode.ERROR)
        span.end()

    def _add_part(self, name: str, started: int, ended: int, links: list[Link] | None = None) -> None:
        self._requests.start_span(name, links=links, start_time=started).end(ended)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
