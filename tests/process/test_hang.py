"""A forward pass that hangs: its client gets an error, other requests are served, and the worker is restarted."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

import httpx
import pytest
from server_process import BODY, ServerProcess, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.timing]  # half a second without an answer is a hang


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--engine", "fake", NEARFAR_FORWARD_TIMEOUT_S="0.5", NEARFAR_DRAIN_TIMEOUT_S="5") as server:
        yield server


async def test_a_hung_forward_is_a_500_and_the_worker_is_restarted(
    server: ServerProcess, measurements: dict[str, object]
) -> None:
    first = server.workers()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        before = await client.post("/v1/embeddings", json=BODY)
        began = time.monotonic()
        hanging = ("POST", "/v1/embeddings", json.dumps({**BODY, "input": "hang"}))
        health = [("GET", path, None) for path in ("/health/ready", "/health", "/health/live")]
        hung, *meanwhile = await asyncio.to_thread(_on_one_connection, server, hanging, *health)
        measurements["500 after s"] = round(time.monotonic() - began, 2)
        after = await _first_success(client)
        measurements["the next 200 after s"] = round(time.monotonic() - began, 2)

    assert (200, 500) == (before.status_code, hung[0])
    assert "server_error" == json.loads(hung[1])["error"]["type"]
    assert [503, 503, 200][: len(meanwhile)] == [status for status, _ in meanwhile]
    assert before.json()["data"] == after.json()["data"]
    assert first != server.workers()
    assert any("a forward hangs, embed of 1 rows, the longest of 3 tokens" in entry["message"] for entry in server.log)


def _on_one_connection(server: ServerProcess, *requests: tuple[str, str, str | None]) -> list[tuple[int, bytes]]:
    """Send one request after another until the worker closes the connection; after a hang it does so soon."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.connect()
    connection.auto_open = 0  # a new connection would reach the next worker
    answers: list[tuple[int, bytes]] = []
    with closing(connection), suppress(HTTPException, OSError):
        for method, path, body in requests:
            connection.request(method, path, body)
            answer = connection.getresponse()
            answers.append((answer.status, answer.read()))
    return answers


async def _first_success(client: httpx.AsyncClient) -> httpx.Response:
    """Retry until the answer is 200, as clients with retries do."""
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await client.post("/v1/embeddings", json=BODY)
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                return answer
            await asyncio.sleep(0.05)


async def test_requests_queued_behind_a_hang_are_served_or_asked_to_retry(server: ServerProcess) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        hung = asyncio.create_task(client.post("/v1/embeddings", json={**BODY, "input": "hang"}))
        await asyncio.to_thread(until, lambda: "nearfar_queue_tokens{" in _nonzero_metrics(server))
        waiting = [asyncio.create_task(client.post("/v1/embeddings", json=BODY)) for _ in range(20)]
        answers = [await each for each in [hung, *waiting]]

    assert 500 == answers[0].status_code
    assert {200, 503} >= {answer.status_code for answer in answers[1:]}
    assert {"1"} == {answer.headers["retry-after"] for answer in answers[1:] if answer.status_code == 503}
    await asyncio.to_thread(server.wait_until_ready)


def _nonzero_metrics(server: ServerProcess) -> str:
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return "\n".join(line for line in lines if not line.endswith(" 0.0"))
