"""A proxy that can reject the next requests with 429, to test the clients' own retries.

``POST /__arm?n=1`` makes the next n POSTs fail and resets the counter; ``GET /__count`` returns the number of POSTs
since. The body of a 429 is that of the vendor with this path. Several vendors share some paths; a field that only
Voyage's clients send selects its body.
"""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGE = "Rate limit reached for requests"
# Headers of one connection. Bodies are forwarded whole, so their length is set again.
_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "server", "date"}
_COHERE = ("/v1/embed", "/v2/embed", "/v2/rerank", "/v1/v1/embed", "/v1/v2/embed", "/v1/v2/rerank")
_TEI = ("/embed", "/rerank", "/similarity", "/predict")


def rejection_body(path: str, body: bytes = b"") -> dict[str, object]:
    """Return the vendor's 429 body for this path; if several vendors share it, the fields of all."""
    if b'"truncation"' in body:  # Voyage's; version 0.3 of its client fails on an object named error
        return {"detail": MESSAGE}
    if path in _COHERE:
        return {"id": "flaky", "message": MESSAGE}
    if path in _TEI:
        return {"error": MESSAGE, "error_type": "Overloaded"}
    if path.startswith("/api/"):
        return {"error": MESSAGE}
    error = {"message": MESSAGE, "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    return {"error": error, "message": MESSAGE, "detail": MESSAGE}


class FlakyProxy(ThreadingHTTPServer):
    """Forward requests to ``upstream``, reject the next ones, and count all."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.count = 0
        self._remaining = 0
        self._lock = threading.Lock()

    def arm(self, number: int) -> None:
        """Reject the next requests and reset the counter."""
        with self._lock:
            self._remaining, self.count = number, 0

    def rejects_next(self) -> bool:
        """Count a request and return whether to reject it."""
        with self._lock:
            self.count += 1
            self._remaining -= 1
            return self._remaining >= 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyProxy
    _json: ClassVar = {"content-type": "application/json"}

    def do_GET(self) -> None:
        if self.path == "/__count":
            self._respond(200, self._json, str(self.server.count).encode())
        else:
            self._forward(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        target = urlsplit(self.path)
        if target.path == "/__arm":
            self.server.arm(int(parse_qs(target.query)["n"][0]))
            self._respond(204, {}, b"")
        elif self.server.rejects_next():
            self._respond(
                429, {**self._json, "retry-after": "1"}, json.dumps(rejection_body(target.path, body)).encode()
            )
        else:
            self._forward(body)

    def _forward(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_HEADERS}
        upstream.request(self.command, self.path, body or None, sent)
        response = upstream.getresponse()
        content = response.read()
        upstream.close()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_HEADERS}
        self._respond(response.status, headers, content)

    def _respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != http.client.NO_CONTENT:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class's name
        """Log nothing: the upstream server has a log."""


@contextmanager
def flaky(upstream: str) -> Iterator[str]:
    """Run the proxy in a thread and yield its URL."""
    with FlakyProxy(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()
