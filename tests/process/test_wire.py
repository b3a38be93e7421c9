"""Malformed and slow HTTP: raw bytes sent to a real server."""

from __future__ import annotations

import json
import re
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RECEIVE_S = 2.0
PATIENCE_S = 30.0  # less than the default receive timeout
BODY = json.dumps({"model": "text-embedding-3-small", "input": "a"}).encode()
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
TE = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module")
def wire() -> Iterator[ServerProcess]:
    timeouts = {"NEARFAR_RECEIVE_TIMEOUT_S": str(RECEIVE_S), "NEARFAR_KEEP_ALIVE_TIMEOUT_S": str(RECEIVE_S)}
    with ServerProcess("--engine", "fake", **timeouts) as server:
        yield server


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n" + body


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def answers_to(server: ServerProcess, sent: bytes) -> list[bytes]:
    """Send bytes and read until the server closes the connection. Return each answer's status."""
    with connect(server) as connection:
        got = b""
        with suppress(ConnectionError):  # closed with something of ours unread
            connection.sendall(sent)
        with suppress(ConnectionError):
            while more := connection.recv(65536):
                got += more
    return re.findall(rb"HTTP/1\.[01] (\d{3})", got)


def answers_to_each(server: ServerProcess, probes: Mapping[str, bytes]) -> dict[str, list[bytes]]:
    """Send each of the probes over its own connection, all at once: the server may wait before it closes one."""
    with ThreadPoolExecutor(len(probes)) as threads:
        return dict(zip(probes, threads.map(lambda sent: answers_to(server, sent), probes.values()), strict=True))


# Where two HTTP parsers could disagree on where the request ends: one answer, then the connection is closed.
AMBIGUOUS = {
    "a length and chunks": (b"200", post(TE + b"Content-Length: %d\r\n" % len(CHUNKED + SMUGGLED), CHUNKED + SMUGGLED)),
    "chunks and a short length": (b"200", post(b"Content-Length: 4\r\n" + TE, CHUNKED + SMUGGLED)),
    "an unknown coding": (b"400", post(b"Transfer-Encoding: xchunked\r\n", CHUNKED + SMUGGLED)),
    "a coding after chunks": (b"400", post(b"Transfer-Encoding: chunked, identity\r\n", CHUNKED + SMUGGLED)),
    "a coding after chunks, apart": (b"400", post(TE + b"Transfer-Encoding: x\r\n", CHUNKED + SMUGGLED)),
    "identity": (b"400", post(b"Transfer-Encoding: identity\r\n" + LENGTH, BODY + SMUGGLED)),
    "a space before the colon": (b"400", post(b"Transfer-Encoding : chunked\r\n" + LENGTH, BODY + SMUGGLED)),
    "a space before the name": (b"400", post(b" Transfer-Encoding: chunked\r\n" + LENGTH, BODY + SMUGGLED)),
    "a vertical tab": (b"400", post(b"Transfer-Encoding:\x0bchunked\r\n", CHUNKED + SMUGGLED)),
    "chunks in HTTP/1.0": (b"400", post(TE, CHUNKED + SMUGGLED).replace(b"/1.1", b"/1.0", 1)),
    "chunks, twice": (b"400", post(TE + TE, CHUNKED + SMUGGLED)),
    "chunks in chunks": (b"400", post(b"Transfer-Encoding: chunked, chunked\r\n", CHUNKED + SMUGGLED)),
    "another coding before chunks": (b"400", post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKED + SMUGGLED)),
    "another coding, where no route reads the body": (
        b"400",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        + CHUNKED
        + SMUGGLED,
    ),
    "another coding, where there is no route": (
        b"400",
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED + SMUGGLED,
    ),
    "another coding in a preflight": (
        b"400",
        b"OPTIONS /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        b"Access-Control-Request-Method: POST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED + SMUGGLED,
    ),
    "two lengths": (b"400", post(LENGTH + b"Content-Length: 4\r\n", BODY + SMUGGLED)),
    "a list of lengths": (b"400", post(LENGTH.replace(b"\r", b", 4\r"), BODY + SMUGGLED)),
    "a length with a sign": (b"400", post(LENGTH.replace(b": ", b": +"), BODY + SMUGGLED)),
    "a length below zero": (b"400", post(b"Content-Length: -1\r\n", BODY + SMUGGLED)),
    "a length in hex": (b"400", post(b"Content-Length: 0x2e\r\n", BODY + SMUGGLED)),
    "a length past counting": (b"400", post(b"Content-Length: " + b"9" * 30 + b"\r\n", BODY + SMUGGLED)),
    "a folded header": (b"400", post(b"X-A: b\r\n c\r\n" + LENGTH, BODY + SMUGGLED)),
    "a folded coding": (b"400", post(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKED + SMUGGLED)),
    "a bare CR": (b"400", post(b"X-A: b\rTransfer-Encoding: chunked\r\n" + LENGTH, BODY + SMUGGLED)),
    "a NUL": (b"400", post(b"X-A: b\0c\r\n" + LENGTH, BODY + SMUGGLED)),
    "no protocol": (b"400", b"GET /health/live\r\n\r\n"),
    "another protocol": (b"400", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10),
    "a chunk below zero": (b"499", post(TE, b"-1\r\n" + BODY + SMUGGLED)),
    "a chunk with 0x": (b"499", post(TE, b"0x" + CHUNKED + SMUGGLED)),
    "a chunk past counting": (b"499", post(TE, b"f" * 17 + b"\r\n" + BODY + SMUGGLED)),
    "a chunk that goes on": (b"499", post(TE, CHUNKED.replace(b"\r\n0", b"XX0") + SMUGGLED)),
    "chunks by bare LF": (b"499", post(TE, CHUNKED.replace(b"\r\n", b"\n") + SMUGGLED)),
    "LF in a chunk's extension": (b"499", post(TE, CHUNKED.replace(b"\r\n", b";a\nb\r\n", 1) + SMUGGLED)),
    "an endless extension": (b"499", post(TE, CHUNKED.replace(b"\r\n", b";" + b"a" * 100_000 + b"\r\n", 1))),
}


def test_an_ambiguous_request_never_smuggles_another(wire: ServerProcess) -> None:
    found = answers_to_each(wire, {name: sent for name, (_, sent) in AMBIGUOUS.items()})

    assert {name: [expected] for name, (expected, _) in AMBIGUOUS.items()} == found


# Where all parsers agree: what follows is another request, and is answered.
PLAIN = {
    "a tab": post(b"Transfer-Encoding:\tchunked\r\n", CHUNKED + SMUGGLED),
    "chunks in capitals": post(b"Transfer-Encoding: CHUNKED\r\n", CHUNKED + SMUGGLED),
    "the same length twice": post(LENGTH + LENGTH, BODY + SMUGGLED),
    "a body that no route reads": b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
    + LENGTH
    + b"\r\n"
    + BODY
    + SMUGGLED,
}


def test_a_request_after_an_unambiguous_one_is_answered(wire: ServerProcess) -> None:
    assert {name: [b"200", b"404"] for name in PLAIN} == answers_to_each(wire, PLAIN)


@pytest.mark.parametrize(
    ("expected", "headers"),
    [
        (b"200", b"".join(b"x-%d: a\r\n" % at for at in range(98))),
        (b"431", b"".join(b"x-%d: a\r\n" % at for at in range(100))),
        (b"200", b"x: " + b"a" * 200_000 + b"\r\n"),
        (b"431", b"x: " + b"a" * 2_000_000 + b"\r\n"),
    ],
)
def test_a_head_has_at_most_100_headers_and_about_400_kilobytes(
    expected: bytes, headers: bytes, wire: ServerProcess
) -> None:
    sent = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + b"\r\n"

    assert [expected] == answers_to(wire, sent)


def test_a_path_has_at_most_64_kilobytes(wire: ServerProcess) -> None:
    assert [b"414"] == answers_to(wire, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_an_unfinished_head_is_closed_after_the_timeout(wire: ServerProcess) -> None:
    started = time.monotonic()

    assert [] == answers_to(wire, b"POST /v1/embeddings HTTP/1.1\r\nHost: loc")

    assert RECEIVE_S * 0.9 < time.monotonic() - started


def test_an_unfinished_body_is_answered_after_the_timeout(wire: ServerProcess) -> None:
    started = time.monotonic()
    with connect(wire) as connection:
        connection.sendall(post(b"Content-Length: 100\r\n", b"{"))
        answer = connection.recv(65536)

        assert b"" == connection.recv(65536)  # closed

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer
    assert RECEIVE_S * 0.9 < time.monotonic() - started


def test_an_idle_connection_outlives_the_receive_timeout() -> None:
    """Clients and proxies keep connections for 60 to 90 s, and get errors from a server that closes them first."""
    with ServerProcess("--engine", "fake", NEARFAR_RECEIVE_TIMEOUT_S="0.5") as server, connect(server) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        first = connection.recv(65536)
        connection.settimeout(1.5)
        with pytest.raises(TimeoutError):  # nothing more comes, and it isn't closed either
            connection.recv(1)
        connection.settimeout(PATIENCE_S)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        second = connection.recv(65536)

    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 200")


def test_a_body_too_large_is_a_413_and_the_connection_stays_usable(wire: ServerProcess) -> None:
    """The body is read to its end: a client would not see the 413 if the connection closed while it sends."""
    much = b"[" * 30_000_000
    for _ in range(5):
        with connect(wire) as connection:
            connection.sendall(post(b"Content-Length: %d\r\n" % len(much), much))
            connection.sendall(post(LENGTH + b"Connection: close\r\n", BODY))
            got = b""
            while more := connection.recv(65536):
                got += more
        assert [b"413", b"200"] == re.findall(rb"HTTP/1\.1 (\d{3})", got)


def test_expect_100_continue_with_a_body_too_large_is_a_413_before_the_receive_timeout() -> None:
    with ServerProcess("--engine", "fake") as server, connect(server) as connection:
        connection.sendall(post(b"Content-Length: 30000000\r\nExpect: 100-continue\r\n"))
        got = connection.recv(65536)

    assert got.startswith(b"HTTP/1.1 413")


def test_a_body_sent_byte_by_byte_gets_no_extra_time(wire: ServerProcess) -> None:
    with connect(wire) as connection:
        connection.sendall(post(b"Content-Length: 100000\r\n"))
        connection.settimeout(0.05)
        answers: list[bytes] = []
        closing_at = time.monotonic() + PATIENCE_S
        with suppress(ConnectionError):  # the server may close the connection while a byte is sent
            while not answers and time.monotonic() < closing_at:
                connection.sendall(b" ")
                with suppress(TimeoutError):
                    answers.append(connection.recv(1000))

    assert time.monotonic() < closing_at
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)


def _p99_ms(client: httpx.Client) -> float:
    """Return the p99 of 200 sequential requests."""
    times = []
    for _ in range(200):
        started = time.perf_counter()
        assert 200 == client.post("/v1/embeddings", content=BODY).status_code
        times.append((time.perf_counter() - started) * 1000)
    return statistics.quantiles(times, n=100)[98]


@pytest.mark.timing
def test_200_slow_senders_do_not_slow_down_other_clients() -> None:
    """Half of them never finish their headers, half their bodies. They would slow down the best of five rounds, too."""
    with ServerProcess("--engine", "fake") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        ratios = []
        for _ in range(5):
            alone_ms = _p99_ms(client)
            with ExitStack() as slow:
                for at in range(200):
                    connection = slow.enter_context(connect(server))
                    connection.sendall(post(b"Content-Length: 1000\r\n", b"{") if at % 2 else post(b"x: a")[:-2])
                ratios.append(_p99_ms(client) / alone_ms)

    assert min(ratios) <= 2


@pytest.mark.parametrize("given", [b"a\r\nset-cookie: x=1", b"a\nset-cookie: x=1", b"a\x00b", b"<script>", b"a b"])
def test_a_request_id_cannot_inject_a_header(given: bytes, wire: ServerProcess) -> None:
    with connect(wire) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nx-request-id: " + given + b"\r\n\r\n")
        got = connection.recv(65536)

    assert b"set-cookie" not in got
    assert not got.startswith(b"HTTP/1.1 200") or re.search(rb"\r\nx-request-id: [\w.-]{1,128}\r\n", got)
