"""The load generator, in a process of its own as the benchmarks run it, against a server whose answers are known."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LOAD = Path(__file__).parents[3] / "benchmarks" / "load.py"
WAIT_S = 0.02


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer what the path says, a little later, with the body that came."""
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(WAIT_S)
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
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def run(port: int, *streams: dict[str, Any], seconds: float = 0.4) -> list[dict[str, Any]]:
    whole = [
        {"name": "one", "path": "/", "bodies": ["a", "bb"], "texts": 1, "clients": 2} | stream for stream in streams
    ]
    order = {"port": port, "streams": whole, "warm_s": 0.05, "seconds": seconds, "patience_s": 5}
    done = subprocess.run([sys.executable, LOAD], input=json.dumps(order), capture_output=True, text=True, check=True)
    figures: list[dict[str, Any]] = json.loads(done.stdout)["figures"]
    return figures


def test_a_closed_loop_has_as_many_requests_in_flight_as_clients(port: int) -> None:
    (found,) = run(port, {"texts": 32})

    assert 1000 * WAIT_S <= found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert found["requests_per_s"] <= 2 / WAIT_S
    assert 32 * found["requests_per_s"] == found["texts_per_s"]
    assert {} == found["failures"]


@pytest.mark.parametrize("path", ["/", "/chunked"])
def test_answers_that_are_kept_are_whole_and_know_their_question(port: int, path: str) -> None:
    long = "x" * 300_000
    (found,) = run(port, {"path": path, "bodies": [long, "bb", "c"], "keep": 2})

    assert [[0, long], [1, "bb"]] == sorted(found["kept"])


def test_failures_are_counted_by_status_and_not_as_answers(port: int) -> None:
    (found,) = run(port, {"path": "/busy", "bodies": ["too much"]})

    assert ["503"] == list(found["failures"])
    assert found["failures"]["503"] > 0
    assert "too much" == found["complaint"]
    assert 0 == found["answered"] == found["requests_per_s"]


def test_in_an_open_loop_time_runs_from_the_arrival_and_not_from_the_sending(port: int) -> None:
    (found,) = run(port, {"rate": 4 / WAIT_S, "clients": 1}, seconds=1.0)

    assert found["requests_per_s"] <= 1 / WAIT_S
    assert found["max_ms"] > 1000  # one client serves a quarter of what arrives, so the last wait seconds
    assert found["answered"] > 150  # of about 200: all that arrived, though late


def test_streams_of_one_run_are_told_apart(port: int) -> None:
    first, second = run(port, {"name": "few", "clients": 1}, {"name": "many", "clients": 4, "path": "/busy"})

    assert ("few", {}) == (first["name"], first["failures"])
    assert ("many", 0) == (second["name"], second["answered"])
