"""Hostile clients of one server on this machine: each opens connections and misuses them until the server closes them.

They run in a process of their own, so that they don't delay whatever measures the server.
"""

from __future__ import annotations

import asyncio
import json
import random
import select
import socket
import struct
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness import http2_frames as h2
from harness.launcher import HOST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from multiprocessing.queues import Queue

_MODEL = {"model": "text-embedding-3-small"}
_PATIENCE_S, _POLL_S = 130.0, 0.2  # longer than any timeout of the server
_EQUAL = 30_000  # texts of one request
_LARGE = json.dumps(_MODEL | {"input": ["a"] * 1000}).encode()  # 8 MB of answer, one text to compute
_UPLOAD = b"[" + b" " * 9_500_000
_EXPECTED = {0, 200, 400, 413, 422, 429, 503}

_EQUAL_BODIES: tuple[tuple[str, dict[str, object]], ...] = (
    ("/rerank", {"query": "q", "texts": ["a"] * _EQUAL}),
    ("/v1/rerank", {"query": "q", "documents": ["a"] * _EQUAL, "model": "rerank-v3.5"}),
    ("/score", {"text_1": "q", "text_2": ["a"] * _EQUAL}),
    ("/api/embed", {"model": "all-minilm", "input": ["a"] * _EQUAL}),
    ("/represent", {"input": ["a"] * _EQUAL}),
)
_HALF_OPEN = (
    b"",
    b"P",
    h2.PREFACE[:20],
    h2.opening(),
    h2.opening() + h2.frame(h2.HEADERS, 0, 1, h2.head("GET", "/health/live")),
    b"GET /health/live HTTP/1.1\r\nHo",
)


@contextmanager
def _connection() -> Iterator[socket.socket]:
    """Open a socket with a small buffer, so that unread bytes stay with the server. Reset it in the end."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.setblocking(False)  # noqa: FBT003 — socket's own signature
        yield client


def _post(path: str, body: bytes, sent: bytes | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (body if sent is None else sent)


async def _stay(port: int, sent: bytes) -> str:
    """Send something and read nothing until the server closes the connection."""
    loop, polling = asyncio.get_running_loop(), select.poll()
    with _connection() as client:
        await loop.sock_connect(client, (HOST, port))
        await loop.sock_sendall(client, sent)
        polling.register(client, getattr(select, "POLLRDHUP", 0))
        for _ in range(round(_PATIENCE_S / _POLL_S)):
            if polling.poll(0):
                return "closed by the server"
            await asyncio.sleep(_POLL_S)
    return "kept open"


async def unread(port: int) -> str:
    """Request a large answer and don't read it."""
    return await _stay(port, _post("/v1/embeddings", _LARGE))


async def unread_http2(port: int) -> str:
    """Request answers on many streams, with windows of no bytes."""
    streams = b"".join(h2.request(2 * at + 1, "/v1/embeddings", _LARGE) for at in range(3))
    return await _stay(port, h2.opening(0) + streams)


async def half_open(port: int) -> str:
    """Send less than a request."""
    return await _stay(port, random.choice(_HALF_OPEN))  # noqa: S311 — no secret


async def half_upload(port: int) -> str:
    """Send most of a body."""
    return await _stay(port, _post("/v1/embeddings", _UPLOAD + b"]", _UPLOAD))


async def disconnect(port: int) -> str:
    """Leave before the answer."""
    body = json.dumps(_MODEL | {"input": [f"text {random.random()}" for _ in range(50)]}).encode()  # noqa: S311
    loop = asyncio.get_running_loop()
    with _connection() as client:
        await loop.sock_connect(client, (HOST, port))
        await loop.sock_sendall(client, _post("/v1/embeddings", body))
        await asyncio.sleep(random.random() * 0.1)  # noqa: S311
    return "abandoned"


async def equal_texts(port: int) -> str:
    """Rank or embed one text many times, and read the answer."""
    path, body = random.choice(_EQUAL_BODIES)  # noqa: S311
    return await _post_and_read(port, path, json.dumps(body).encode())


async def _post_and_read(port: int, path: str, body: bytes) -> str:
    """Send a request, and return the status of its answer, which is read to the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(_post(path, body).replace(b"Host", b"Connection: close\r\nHost", 1))
        line = await reader.readline()
        while await reader.read(1 << 16):
            pass
    finally:
        writer.close()
    status = int(line.split()[1]) if line else 0  # none: the worker was killed
    return str(status) if status in _EXPECTED else f"unexpected status {status}"


def _large_bodies() -> Iterator[tuple[str, bytes]]:
    """Yield paths and bodies of megabytes that take long to read, for their size or for the number of their values."""
    text = "word " * 1_900_000
    half_pairs = '["' + "\\ud83d" * 1_500_000 + '"]'
    yield "/v1/embeddings", json.dumps(_MODEL | {"input": text}).encode()
    yield "/v1/embeddings", f'{{"model": "text-embedding-3-small", "input": {half_pairs}}}'.encode()
    yield "/v1/embeddings", json.dumps(_MODEL | {"input": [7] * 2_500_000}).encode()
    yield "/v1/embeddings", json.dumps(_MODEL | {"input": "a"} | {f"key{at}": 1 for at in range(500_000)}).encode()
    yield "/tokenize", json.dumps({"inputs": text}).encode()
    yield "/v1/tokenize", json.dumps({"text": text, "model": "embed-english-v3.0"}).encode()
    yield "/rerank", json.dumps({"query": text, "texts": ["a"]}).encode()
    fields = {"model": "rerank-v3.5", "query": "q", "documents": [{"a": "b"}], "rank_fields": ["a"] * 1_500_000}
    yield "/v1/rerank", json.dumps(fields).encode()


_large: list[tuple[str, bytes]] = []


async def large_json(port: int) -> str:
    """Send megabytes of JSON that take long to read."""
    if not _large:
        _large.extend(_large_bodies())
    return await _post_and_read(port, *random.choice(_large))  # noqa: S311


# how many of each at once
MIX: tuple[tuple[Callable[[int], Awaitable[str]], int], ...] = (
    (equal_texts, 2),
    (large_json, 1),
    (unread, 40),
    (unread_http2, 10),
    (half_upload, 20),
    (half_open, 50),
    (disconnect, 5),
)


NAMES = [kind.__name__ for kind, _ in MIX]


def run_attacks(port: int, names: Sequence[str], duration_s: float, results: Queue[Counter[str]]) -> None:
    """Run these attacks of the mix for so long; send how they ended to ``results``."""
    ended: Counter[str] = Counter()

    async def attack(kind: Callable[[int], Awaitable[str]], until: float) -> None:
        while time.monotonic() < until:
            try:
                how = await asyncio.wait_for(kind(port), _PATIENCE_S * 2)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:  # the worker may have been killed
                how = type(error).__name__
                await asyncio.sleep(0.2)
            ended[f"{kind.__name__}: {how}"] += 1

    async def run() -> None:
        until = time.monotonic() + duration_s
        chosen = [(kind, count) for kind, count in MIX if kind.__name__ in names]
        tasks = [asyncio.create_task(attack(kind, until)) for kind, count in chosen for _ in range(count)]
        await asyncio.wait(tasks, timeout=duration_s)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(run())
    results.put(ended)
