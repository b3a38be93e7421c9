"""The load generator, run as a separate process against a server with known responses."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from harness.launcher import run_module
from harness.load.spec import LoadResult, LoadSpec, StreamResult, StreamSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timing

LATENCY_S = 0.02


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Return the request's body after LATENCY_S; the path selects status and encoding."""
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(LATENCY_S)
        self.send_response(503 if self.path == "/busy" else 200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            half = len(body) // 2
            for part in (body[:half], body[half:], b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def run(port: int, *streams: dict[str, Any], duration_s: float = 0.4) -> tuple[StreamResult, ...]:
    defaults: dict[str, Any] = {
        "name": "one",
        "path": "/",
        "bodies": ("a", "bb"),
        "texts_per_request": 1,
        "clients": 2,
    }
    specs = tuple(StreamSpec(**(defaults | stream)) for stream in streams)
    spec = LoadSpec(port=port, streams=specs, warmup_s=0.05, duration_s=duration_s, timeout_s=5)
    return LoadResult.from_json(run_module("harness.load.generator", spec.to_json())).streams


def test_a_closed_loop_has_as_many_requests_in_flight_as_clients(port: int) -> None:
    (found,) = run(port, {"texts_per_request": 32})

    assert 1000 * LATENCY_S <= found.p50_ms <= found.p99_ms <= found.max_ms
    assert found.requests_per_s <= 2 / LATENCY_S
    assert 32 * found.requests_per_s == found.texts_per_s
    assert {} == found.failures


def test_kept_responses_are_complete_and_have_the_index_of_their_request(port: int) -> None:
    long = "x" * 300_000
    streams = [{"path": path, "bodies": (long, "bb", "c"), "keep": 2} for path in ("/", "/chunked")]

    found = run(port, *streams)

    assert [[(0, long), (1, "bb")]] * 2 == [sorted(stream.kept) for stream in found]


def test_streams_are_measured_separately_and_failures_counted_by_status(port: int) -> None:
    good, busy = run(port, {"name": "good"}, {"name": "busy", "path": "/busy", "bodies": ("too much",)})

    assert ("good", {}) == (good.name, good.failures)
    assert ("busy", ["503"]) == (busy.name, list(busy.failures))
    assert busy.failures["503"] > 0
    assert "too much" == busy.first_failure
    assert 0 == busy.succeeded == busy.requests_per_s


def test_in_an_open_loop_latency_counts_from_the_arrival_of_a_request(port: int) -> None:
    (found,) = run(port, {"rate": 4 / LATENCY_S, "clients": 1}, duration_s=1.0)

    assert found.requests_per_s <= 1 / LATENCY_S
    assert found.max_ms > 1000  # one client serves a quarter of the arrivals, so the last ones wait for seconds
    assert found.succeeded > 150  # of about 200: all that arrived in the window, however late
