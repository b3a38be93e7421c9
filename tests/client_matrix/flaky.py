"""A proxy that passes everything on, and answers the next requests with 429 when it has been told to.

So that a client's own way of trying again is what is tested. ``POST /__arm?n=1`` lets the next n POSTs fail and begins
to count anew; ``GET /__count`` says how many POSTs have come since. What it says when it refuses depends on the path;
where several vendors share one, on a field that Voyage's clients alone send.
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

SAYS = "Rate limit reached for requests"
# What concerns one connection alone. Bodies are passed on whole, so their length is told anew.
_OWN_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "server", "date"}
_COHERE = ("/v1/embed", "/v2/embed", "/v2/rerank", "/v1/v1/embed", "/v1/v2/embed", "/v1/v2/rerank")
_TEI = ("/embed", "/rerank", "/similarity", "/predict")


def refusal(path: str, body: bytes = b"") -> dict[str, object]:
    """Give what the vendor whose path it is says at too many requests; where several share one, all their fields."""
    if b'"truncation"' in body:  # Voyage's: version 0.3 of its client can't bear an object called error
        return {"detail": SAYS}
    if path in _COHERE:
        return {"id": "flaky", "message": SAYS}
    if path in _TEI:
        return {"error": SAYS, "error_type": "Overloaded"}
    if path.startswith("/api/"):
        return {"error": SAYS}
    error = {"message": SAYS, "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    return {"error": error, "message": SAYS, "detail": SAYS}


class Flaky(ThreadingHTTPServer):
    """Where the requests go, how many more are refused, and how many have come."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.count = 0
        self._left = 0
        self._turn = threading.Lock()

    def arm(self, number: int) -> None:
        """Let the next requests fail, and count anew."""
        with self._turn:
            self._left, self.count = number, 0

    def refuses_next(self) -> bool:
        """Count a request; tell whether it is one of those to be refused."""
        with self._turn:
            self.count += 1
            self._left -= 1
            return self._left >= 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Flaky
    _json: ClassVar = {"content-type": "application/json"}

    def do_GET(self) -> None:
        if self.path == "/__count":
            self._answer(200, self._json, str(self.server.count).encode())
        else:
            self._pass_on(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        target = urlsplit(self.path)
        if target.path == "/__arm":
            self.server.arm(int(parse_qs(target.query)["n"][0]))
            self._answer(204, {}, b"")
        elif self.server.refuses_next():
            self._answer(429, {**self._json, "retry-after": "1"}, json.dumps(refusal(target.path, body)).encode())
        else:
            self._pass_on(body)

    def _pass_on(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _OWN_HEADERS}
        upstream.request(self.command, self.path, body or None, sent)
        reply = upstream.getresponse()
        content = reply.read()
        upstream.close()
        headers = {name: value for name, value in reply.getheaders() if name.lower() not in _OWN_HEADERS}
        self._answer(reply.status, headers, content)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != http.client.NO_CONTENT:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class's name
        """Say nothing: the server behind has its own log."""


@contextmanager
def flaky(upstream: str) -> Iterator[str]:
    """Run the proxy beside us; give its address."""
    with Flaky(upstream) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()
