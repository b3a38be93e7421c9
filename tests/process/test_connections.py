"""Clients that keep a connection of a real server and don't use it: half requests, and answers that aren't read."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness import http2_frames as h2
from server_process import BODY, ServerProcess, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30.0
LIMIT_S = 2.0
# Over a megabyte of answer: more than the system and granian take without a reader.
LARGE = json.dumps({"model": "text-embedding-3-small", "input": ["a"] * 500}).encode()
SMALL = json.dumps({"model": "text-embedding-3-small", "input": "a"}).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    limits = {f"NEARFAR_{name}_TIMEOUT_S": str(LIMIT_S) for name in ("RECEIVE", "KEEP_ALIVE", "WRITE")}
    with ServerProcess("--engine", "fake", **limits) as server:
        yield server


def connect(server: ServerProcess) -> socket.socket:
    """Connect with a buffer so small that nearly all of a large answer waits in the server."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE_S)
    client.connect(("127.0.0.1", server.port))
    return client


def read_to_end(client: socket.socket) -> bytes:
    """Read until the server closes the connection; raise TimeoutError if it sends nothing and doesn't close it."""
    received = bytearray()
    with suppress(ConnectionError):
        while more := client.recv(65536):
            received += more
    return bytes(received)


def metric(server: ServerProcess, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=PATIENCE_S).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"nearfar_{name}"))


def post(body: bytes, length: int | None = None) -> bytes:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    return head % (len(body) if length is None else length) + body


IDLE = {
    "nothing": b"",
    "one letter of HTTP/2's preface": b"P",
    "half of the preface": h2.PREFACE[:20],
    "an HTTP/2 connection without a request": h2.opening(),
    "HEADERS without an end": h2.opening() + h2.frame(h2.HEADERS, 0, 1, h2.head("GET", "/health/live")),
    "CONTINUATION without an end": h2.opening()
    + h2.frame(h2.HEADERS, 0, 1, h2.head("GET", "/health/live"))
    + h2.frame(h2.CONTINUATION, 0, 1, b"\0\1a\1b") * 3,
    "half of a head": b"GET /health/live HTTP/1.1\r\nHost: loc",
    "half of a body": post(b"{", 100),
    "a ping": h2.opening() + h2.frame(h2.PING, 0, 0, b"a" * 8),
}


def test_a_connection_without_a_whole_request_is_closed_after_the_timeout(server: ServerProcess) -> None:
    with ExitStack() as stack:
        clients = {name: stack.enter_context(connect(server)) for name in IDLE}
        began = time.monotonic()
        for name, client in clients.items():
            client.sendall(IDLE[name])
        for client in clients.values():
            read_to_end(client)

    assert time.monotonic() - began > LIMIT_S * 0.9


def test_pings_do_not_keep_a_connection_open(server: ServerProcess) -> None:
    with connect(server) as client:
        client.sendall(h2.opening())
        client.settimeout(0.05)

        def is_closed() -> bool:
            try:
                client.sendall(h2.frame(h2.PING, 0, 0, b"a" * 8))
                client.recv(65536)
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            return False

        until(is_closed, PATIENCE_S)


UNREAD = {
    "HTTP/1": post(LARGE),
    "HTTP/1, the next request sent already": post(LARGE) * 3,
    "HTTP/2 without a window": h2.opening(0) + h2.request(1, "/v1/embeddings", LARGE),
    "HTTP/2 with a window for one byte": h2.opening(1) + h2.request(1, "/v1/embeddings", LARGE),
    "HTTP/2 with small answers on many streams": h2.opening(0)
    + b"".join(h2.request(2 * at + 1, "/v1/embeddings", SMALL) for at in range(50)),
    "HTTP/2 that reads all but the end": h2.opening(1_000_000) + h2.request(1, "/v1/embeddings", LARGE),
}


def test_a_client_that_does_not_read_its_answer_is_closed_after_the_write_timeout(server: ServerProcess) -> None:
    before = metric(server, 'connections_closed_total{reason="unread"}')
    whole = httpx.post(f"{server.url}/v1/embeddings", content=LARGE, timeout=PATIENCE_S).content
    with ExitStack() as stack:
        clients = {name: stack.enter_context(connect(server)) for name in UNREAD}
        for name, client in clients.items():
            client.sendall(UNREAD[name])
        until(lambda: metric(server, "unread_bytes") > 1_000_000)

        until(lambda: metric(server, 'connections_closed_total{reason="unread"}') >= before + len(UNREAD), PATIENCE_S)

        for client in clients.values():
            assert len(read_to_end(client)) < len(whole)
    assert 0 == metric(server, "unread_bytes")


def test_a_client_that_reads_slowly_gets_the_whole_answer() -> None:
    """It takes longer than the write timeout in all; on a busy machine it reads as fast as it can."""
    with ServerProcess("--engine", "fake", NEARFAR_WRITE_TIMEOUT_S=str(LIMIT_S)) as server, connect(server) as client:
        whole = httpx.post(f"{server.url}/v1/embeddings", content=LARGE, timeout=PATIENCE_S).content
        client.sendall(post(LARGE).replace(b"Host", b"Connection: close\r\nHost"))
        began = time.monotonic()
        got = b""
        while more := client.recv(16_384):
            got += more
            time.sleep(max(began + 1.25 * LIMIT_S * len(got) / len(whole) - time.monotonic(), 0))

    assert got.startswith(b"HTTP/1.1 200")
    assert whole == got.partition(b"\r\n\r\n")[2]


def test_the_bytes_that_wait_for_all_clients_are_bounded() -> None:
    with ServerProcess("--engine", "fake", NEARFAR_MAX_UNREAD_BYTES="10000000") as server, ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(connect(server))
            client.sendall(post(LARGE))
            assert client.recv(12).endswith(b"200")  # once there is room

        until(lambda: metric(server, 'connections_closed_total{reason="unread"}') > 5, PATIENCE_S)

        until(lambda: metric(server, "unread_bytes") <= 10_000_000)
        assert 200 == httpx.post(f"{server.url}/v1/embeddings", json=BODY, timeout=PATIENCE_S).status_code
    assert any(entry["message"].startswith("closed") for entry in server.log)


def test_more_connections_than_files_leave_the_server_at_rest_and_make_room() -> None:
    """Without a free file, granian would try to accept in a loop: one whole CPU, and nothing in the log."""
    with ServerProcess("--engine", "fake", limits="ulimit -n 64") as server, ExitStack() as stack:
        [worker] = server.workers()
        for _ in range(40):
            stack.enter_context(connect(server)).sendall(b"GET /hea")
        server.until_logged("12 connections are open, others wait; see ulimit -n")
        began, used = time.monotonic(), _processor_s(worker)

        assert 200 == httpx.post(f"{server.url}/v1/embeddings", json=BODY, timeout=PATIENCE_S).status_code

        assert _processor_s(worker) - used < 0.5 * (time.monotonic() - began) + 0.1
    server.until_logged("closed")


def _processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 — Linux alone
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


HEADS = {
    "200 kB": (b"live", {"x": "a" * 200_000}),
    "500 kB": (b"", {"x": "a" * 500_000}),
    "90 headers": (b"live", {f"x-{at}": "a" for at in range(90)}),
    "101 headers": (b"HeadTooLarge", {f"x-{at}": "a" for at in range(101)}),
}


def test_a_head_on_http2_has_the_limits_of_http1(server: ServerProcess) -> None:
    found: dict[str, bytes] = {}
    for name, (_, headers) in HEADS.items():
        block = h2.head("GET", "/health/live", headers)
        parts = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
        with connect(server) as client:
            got = b""
            with suppress(ConnectionError):
                client.sendall(h2.opening())
                for at, part in enumerate(parts):
                    end = h2.END_HEADERS if part is parts[-1] else 0
                    client.sendall(
                        h2.frame(h2.CONTINUATION if at else h2.HEADERS, end | h2.END_STREAM * (not at), 1, part)
                    )
                while b"}" not in got and (more := client.recv(65536)):
                    got += more
        found[name] = next((word for word in (b"live", b"HeadTooLarge") if word in got), b"")

    assert {name: expected for name, (expected, _) in HEADS.items()} == found


def test_an_http2_connection_has_at_most_100_streams(server: ServerProcess) -> None:
    with connect(server) as client:
        client.sendall(h2.opening())
        settings = client.recv(65536)

    assert b"\0\3\0\0\0\x64" in settings  # SETTINGS_MAX_CONCURRENT_STREAMS


def test_bodies_that_arrive_slowly_do_not_keep_others_from_connecting() -> None:
    limits: dict[str, Any] = {"limits": "ulimit -n 64", "NEARFAR_RECEIVE_TIMEOUT_S": str(20 * PATIENCE_S)}
    with ServerProcess("--engine", "fake", **limits) as server, ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connect(server)).sendall(post(b"{", 100))

        assert 200 == httpx.post(f"{server.url}/v1/embeddings", json=BODY, timeout=PATIENCE_S).status_code
