"""Traces, received by a collector's endpoint of our own."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from conftest import calling, running, until
from nearfar_fakes import SECRET
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from nearfar import Settings
from nearfar.core.jobs import Timings
from nearfar.telemetry.events import JobDone
from nearfar.telemetry.logs import RequestRecord
from nearfar.telemetry.stopwatch import Stopwatch
from nearfar.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

pytestmark = pytest.mark.anyio

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
OPENAI = "/v1/embeddings"


class Collector(HTTPServer):
    """Keeps the spans that are sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = ExportTraceServiceRequest()

    @property
    def spans(self) -> list[Span]:
        """List what was received."""
        return [span for each in self.received.resource_spans for part in each.scope_spans for span in part.spans]

    def settings(self, **more: Any) -> Settings:
        """Build settings that send traces here."""
        return Settings(engine="fake", otlp_endpoint=f"http://127.0.0.1:{self.server_port}", **more)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert "/v1/traces" == self.path
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.received.MergeFromString(body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, args=(0.01,))
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def body_of(text: str) -> dict[str, str]:
    return {"model": "text-embedding-3-small", "input": text}


def attributes(span: Span) -> dict[str, str | int]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


async def test_a_request_and_its_parts_are_spans_of_the_callers_trace(collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "mine"}

    async with running(collector.settings()) as app, calling(app) as client:
        answer = await client.post(OPENAI, json=body_of("one two"), headers=headers)
        await client.get("/health/live")

    [request] = [span for span in collector.spans if span.name == f"POST {OPENAI}"]
    parts = {span.name: span for span in collector.spans if span.parent_span_id == request.span_id}
    assert (TRACE, CALLER) == (request.trace_id.hex(), request.parent_span_id.hex())
    assert {"tokenize", "queue", "inference", "render"} == set(parts)
    assert {TRACE} == {span.trace_id.hex() for span in parts.values()}
    assert len(collector.spans) == 6  # those, and the forward
    order = [parts[name].start_time_unix_nano for name in ("tokenize", "queue", "inference", "render")]
    assert sorted(order) == order
    expected = {
        "http.request.method": "POST",
        "http.route": OPENAI,
        "http.response.status_code": 200,
        "nearfar.dialect": "openai",
        "nearfar.request_id": "mine",
        "nearfar.model": "sentence-transformers/all-MiniLM-L6-v2",
        "nearfar.task": "embed",
        "nearfar.inputs": 1,
        "nearfar.rows": 1,
        "nearfar.tokens": 4,
        "nearfar.cut": 0,
    }
    assert expected == attributes(request)
    assert f"00-{TRACE}-{request.span_id.hex()}-01" == answer.headers["traceresponse"]


def test_the_parts_of_a_job_keep_their_times_if_they_are_reported_late(collector: Collector) -> None:
    tracing = Tracing(f"http://127.0.0.1:{collector.server_port}", sample_ratio=1.0)
    a_minute_ago = time.perf_counter() - 60
    timings = Timings(load_s=0, taken_at=a_minute_ago, total_s=3, tokenize_s=1, queue_s=1, inference_s=1)

    with tracing.request_span({}, "POST", OPENAI, ()):
        tracing.observe(JobDone(task="embed", inputs=1, timings=timings, stopwatch=Stopwatch()))
    reported = time.time_ns()
    tracing.close()

    [inference] = [span for span in collector.spans if span.name == "inference"]
    assert inference.end_time_unix_nano < reported - 59_000_000_000


async def test_one_batch_is_linked_to_the_requests_it_served_and_they_to_it(collector: Collector) -> None:
    async with running(collector.settings()) as app, calling(app) as client:
        engine = app.state.fleet.models()[0].lane._engine
        ran = len(engine.batches)
        engine.gate.clear()
        first = asyncio.create_task(client.post(OPENAI, json=body_of("first")))
        await until(lambda: len(engine.batches) == ran + 1)
        others = [asyncio.create_task(client.post(OPENAI, json=body_of(text))) for text in ("one", "two", "three")]
        await until(lambda: app.state.fleet.depths()[0].rows == 3)
        engine.gate.set()
        await asyncio.gather(first, *others)

    requests = {span.span_id for span in collector.spans if span.name == f"POST {OPENAI}"}
    alone, together = sorted(
        (span for span in collector.spans if span.name == "forward"), key=lambda span: len(span.links)
    )
    assert (1, 3) == (len(alone.links), len(together.links))
    assert requests == {link.span_id for forward in (alone, together) for link in forward.links}
    assert {"nearfar.rows": 3, "nearfar.requests": 3}.items() <= attributes(together).items()
    back = [[link.span_id for link in span.links] for span in collector.spans if span.name == "inference"]
    assert sorted([[alone.span_id], *[[together.span_id]] * 3]) == sorted(back)


async def test_spans_hold_no_text_and_no_key_whatever_goes_wrong(collector: Collector) -> None:
    right, wrong = {"authorization": "Bearer sk-private"}, {"authorization": "Bearer sk-wrongprivate"}

    async with running(collector.settings(api_key="sk-private")) as app, calling(app) as client:
        answers = [
            await client.post(f"{OPENAI}?key=sk-private", json=body_of("a private sentence"), headers=right),
            await client.post(OPENAI, json=body_of("a private boom"), headers=right),
            await client.post(OPENAI, json={"model": "m", "input": {"private": 1}}, headers=right),
            await client.post(OPENAI, json=body_of("a private sentence"), headers=wrong),
        ]
        for method, path in (("GET", "/v1/models/sk-private"), ("GET", "/sk-private"), ("SK-private", "/v1/models")):
            await client.request(method, path, headers=right)
        await client.request("SK-private", OPENAI, headers=right)

    requests = [attributes(span) for span in collector.spans if span.name == f"POST {OPENAI}"]
    assert [200, 500, 400, 401] == [answer.status_code for answer in answers]
    assert [200, 500, 400, 401] == [each["http.response.status_code"] for each in requests]
    assert "EngineError" == requests[1]["error.type"]
    assert "private" not in str(collector.spans).lower()
    assert SECRET not in str(collector.spans)


async def test_a_batch_that_failed_says_so(collector: Collector) -> None:
    async with running(collector.settings()) as app, calling(app) as client:
        await client.post(OPENAI, json=body_of("boom"))

    failed = {span.name for span in collector.spans if span.status.code == span.status.STATUS_CODE_ERROR}
    assert {"forward", f"POST {OPENAI}"} == failed


async def test_with_a_sample_ratio_of_zero_only_requests_with_a_sampled_parent_are_traced(collector: Collector) -> None:
    ours = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    theirs = {"traceparent": f"00-{TRACE}-{CALLER}-00"}

    async with running(collector.settings(trace_sample_ratio=0.0)) as app, calling(app) as client:
        answers = [await client.post(OPENAI, json=body_of("one"), headers=given) for given in ({}, theirs, ours)]

    assert [0, 0, 1] == [int(answer.headers["traceresponse"][-2:], 16) & 1 for answer in answers]
    assert 1 == len([span for span in collector.spans if span.name.startswith("POST")])
    assert 1 == len([span for span in collector.spans if span.name == "forward"])


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 2), (0.0, 0)])
async def test_a_batch_is_a_span_with_its_counts(
    collector: Collector, tmp_path: Path, ratio: float, count: int
) -> None:
    bodies = [body_of("private"), {"model": "text-embedding-3-small", "input": ""}]
    lines = [
        {"custom_id": f"private {at}", "method": "POST", "url": OPENAI, "body": body} for at, body in enumerate(bodies)
    ]
    inputs = ["\n".join(map(json.dumps, lines)), "private"]
    settings = collector.settings(state_dir=str(tmp_path), trace_sample_ratio=ratio)
    found = []

    async with running(settings) as app, calling(app) as client:
        for data in inputs:
            file = await client.post("/v1/files", files={"file": ("a.jsonl", data)}, data={"purpose": "batch"})
            fields = {"input_file_id": file.json()["id"], "endpoint": OPENAI, "completion_window": "24h"}
            batch = (await client.post("/v1/batches", json=fields)).json()
            async with asyncio.timeout(60):
                while batch["status"] not in {"completed", "failed"}:
                    batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
            found.append(batch)

    spans = [span for span in collector.spans if span.name == "batch"]
    expected = [
        {
            "nearfar.batch.id": batch["id"],
            "nearfar.batch.endpoint": OPENAI,
            "nearfar.batch.status": status,
            "nearfar.batch.requests": total,
            "nearfar.batch.completed": total // 2,
            "nearfar.batch.failed": total // 2,
            "nearfar.tokens": tokens,
        }
        for batch, status, total, tokens in zip(found, ["completed", "failed"], [2, 0], [3, 0], strict=True)
    ]
    assert expected[:count] == [attributes(span) for span in spans]
    assert [b"", b""][:count] == [span.parent_span_id for span in spans]
    assert [0, Status.STATUS_CODE_ERROR][:count] == [span.status.code for span in spans]
    assert all(
        span.start_time_unix_nano == batch["created_at"] * 10**9 for span, batch in zip(spans, found, strict=False)
    )
    assert "private" not in str(collector.spans)


@pytest.mark.parametrize(
    ("given", "logged"),
    [(f"00-{TRACE}-{CALLER}-00", TRACE), ("00-nonsense", None), (None, None)],
    ids=["theirs", "nonsense", "none"],
)
async def test_the_log_has_the_callers_trace_even_where_we_send_none(
    given: str | None, logged: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        with caplog.at_level(logging.INFO, "nearfar.access"):
            answer = await client.post(
                OPENAI, json=body_of("one"), headers={"traceparent": given} if given is not None else {}
            )

    [record] = [record for record in caplog.records if isinstance(record, RequestRecord)]
    assert logged == record.fields.get("trace_id")
    assert "traceresponse" not in answer.headers
