"""No key and no line break of a client reaches the log, the metrics or the traces of a real server."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from server_process import ServerProcess

from nearfar.http.gate.keys import add_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN = "Correct.Horse_Battery-Staple9"
TRACED = f"traceparent: 00-{'a' * 32}-{'b' * 16}-01"
# Request lines, headers and bodies; {0} is a key, {1} and {2} are its halves, {3} is percent-encoded twice.
REQUESTS = [
    *(f"GET {path} HTTP/1.1" for path in ("/{0}", "/v1/models/{0}", "/v1/models?api_key={0}", "/{1}%2F{2}", "/{3}")),
    *(f"GET /openai/deployments/{part}/embeddings HTTP/1.1" for part in ("{0}", "{1}/{2}", "x{0}")),
    *(
        f"GET /v1/models HTTP/1.1\r\n{header}: {{0}}\r\n{TRACED}"
        for header in (
            "referer",
            "origin",
            "user-agent",
            "x-request-id",
            "tracestate",
            "cookie",
            "baggage",
            "x-api-key",
        )
    ),
    "GET /v1/models HTTP/1.1\r\ntracestate: vendor={0}\r\n" + TRACED,
    "{0} /v1/models HTTP/1.1",
    *(
        f"POST /v1/embeddings HTTP/1.1\r\ncontent-length: {len(body) - 1 + 40}\r\n\r\n{body:<{len(body) + 40}}"
        for body in (
            '{{"model":"{0}","input":"x"}}',
            '{{"model":"text-embedding-3-small","input":"x","{0}":1}}',
            '{{"model":"text-embedding-3-small","input":"x","encoding_format":"{0}"}}',
            '{{"model":"{0}',
        )
    ),
]
INJECTED = ["%0A12:00:00%20forged", "%1B[31m", "%C2%9B31m", "%E2%80%A8", "%C2%85", "%250A", "%ED%A0%80", "a" * 60_000]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Yield the URL of a collector of traces, and the bodies that it receives."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()


def send(port: int, request: str, key: str) -> bytes:
    head, _, body = request.partition("\r\n\r\n")
    host = f"host: localhost\r\nconnection: close\r\nauthorization: Bearer {key}"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{head}\r\n{host}\r\n\r\n{body}".encode())
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def pieces(key: str) -> set[str]:
    return {piece for at in range(len(key) - 11) for piece in (key[at : at + 12], key[at : at + 12].lower())}


def test_keys_and_line_breaks_stay_out_of_logs_metrics_and_traces(
    tmp_path: Path, collector: tuple[str, list[bytes]]
) -> None:
    endpoint, spans = collector
    key = add_key(tmp_path / "keys.toml", "caller")
    variables = {"NEARFAR_API_KEY": OWN, "NEARFAR_API_KEYS_FILE": str(tmp_path / "keys.toml")}
    with ServerProcess("--engine", "fake", NEARFAR_OTLP_ENDPOINT=endpoint, **variables) as server:
        for secret in (OWN, key):
            half, encoded = len(secret) // 2, "".join(f"%25{ord(char):02x}" for char in secret)
            for request in REQUESTS:
                assert send(server.port, request.format(secret, secret[:half], secret[half:], encoded), secret)
        for text in INJECTED:
            assert send(server.port, f"GET /v1/models/a{text} HTTP/1.1", key)
        metrics = send(server.port, "GET /metrics HTTP/1.1", key).decode()
    log = [str(value) for entry in server.log for value in entry.values()]

    written = "\n".join(log) + metrics + b"".join(spans).decode(errors="replace")
    assert not [piece for secret in (OWN, key) for piece in pieces(secret) if piece in written]
    assert "/v1/models/a" in written
    assert spans
    assert not [entry for entry in server.log if "level" not in entry]  # a line that isn't JSON
    assert not [value for value in log if len(value) > 1000]
