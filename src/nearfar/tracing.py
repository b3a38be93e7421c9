"""Traces of requests, sent to an OpenTelemetry collector over OTLP/HTTP. Off unless an endpoint is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from nearfar.errors import ConfigError

if TYPE_CHECKING:
    from litestar.middleware import DefineMiddleware


_EXPORT_S = 2.0  # then a batch of spans is given up, so that a dead collector doesn't hold up the end


class Tracing:
    """Makes a span of every request but health checks, under the caller's own trace where it sent one."""

    def __init__(self, endpoint: str) -> None:
        try:
            from litestar.plugins.opentelemetry import OpenTelemetryConfig
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise ConfigError('otlp_endpoint: traces need more packages; pip install "nearfar[tracing]"') from error
        self._provider = TracerProvider(resource=Resource({"service.name": "nearfar"}), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.middleware: DefineMiddleware = OpenTelemetryConfig(
            tracer_provider=self._provider,
            exclude="^/health/",
            exclude_spans=["receive", "send"],  # one span a request, not one a message
        ).middleware

    def close(self) -> None:
        """Send what is left, and stop."""
        self._provider.shutdown()
