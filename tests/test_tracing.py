"""Traces, received by a collector's endpoint of our own."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
from conftest import calling, running
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nearfar import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(HTTPServer):
    """Keeps the spans that are sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = ExportTraceServiceRequest()


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert "/v1/traces" == self.path
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.server.received.MergeFromString(body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


async def test_a_request_is_a_span_under_the_callers_trace_without_its_text(collector: Collector) -> None:
    settings = Settings(engine="fake", otlp_endpoint=f"http://127.0.0.1:{collector.server_port}")
    body = {"model": "text-embedding-3-small", "input": "a private sentence"}
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "authorization": "Bearer sk-private"}

    async with running(settings) as app, calling(app) as client:
        await client.post("/v1/embeddings", json=body, headers=headers)
        await client.get("/health/live")

    spans = [span for each in collector.received.resource_spans for part in each.scope_spans for span in part.spans]
    assert [TRACE] == [span.trace_id.hex() for span in spans]
    assert "/v1/embeddings" in spans[0].name
    assert "private" not in str(spans)
