"""Clients that take localhost for ::1 reach a server of 127.0.0.1, with the same limits, reloads and drain."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
from server_process import BODY, ServerProcess, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESSES = ("127.0.0.1", "[::1]")
LARGE = json.dumps({**BODY, "input": ["a"] * 500}).encode()  # an answer of a megabyte
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    limits = {f"NEARFAR_{name}_TIMEOUT_S": "1" for name in ("RECEIVE", "KEEP_ALIVE", "WRITE")}
    with ServerProcess("--engine", "fake", **limits) as server:
        yield server


def _statuses(server: ServerProcess) -> list[int]:
    found = []
    for address in ADDRESSES:
        try:
            url = f"http://{address}:{server.port}/v1/embeddings"
            found.append(httpx.post(url, json=BODY, timeout=60).status_code)
        except httpx.TransportError:
            found.append(0)
    return found


def _closed(server: ServerProcess, reason: str) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    start = f'nearfar_connections_closed_total{{reason="{reason}"}}'
    return sum(float(line.split()[1]) for line in lines if line.startswith(start))


def test_both_loopback_addresses_are_served_after_reloads_and_deaths(server: ServerProcess) -> None:
    assert [200, 200] == _statuses(server)

    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(server.workers()) == 2)
    until(lambda: len(server.workers()) == 1)
    assert [200, 200] == _statuses(server)

    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: _statuses(server) == [200, 200])


def test_idle_clients_and_clients_that_do_not_read_are_closed_on_both(server: ServerProcess) -> None:
    before = _closed(server, "unread")
    with ExitStack() as stack:
        for address in ADDRESSES:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            idle, unread = (stack.enter_context(socket.socket(family)) for _ in range(2))
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for client in (idle, unread):
                client.connect((address.strip("[]"), server.port))
            unread.sendall(HEAD % len(LARGE) + LARGE)
            idle.settimeout(30)
            assert b"" == idle.recv(1)

        until(lambda: _closed(server, "unread") == before + 2, 30)


def test_a_drain_ends_connections_of_both() -> None:
    with ServerProcess("--engine", "fake") as server:
        clients = [httpx.Client(base_url=f"http://{address}:{server.port}", timeout=60) for address in ADDRESSES]
        assert [200, 200] == [client.post("/v1/embeddings", json=BODY).status_code for client in clients]

        server.process.send_signal(signal.SIGTERM)

        assert 0 == server.wait()
        assert [0, 0] == _statuses(server)
        for client in clients:
            client.close()
