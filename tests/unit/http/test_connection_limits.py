"""Which connections are closed, and how large answers are sent."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from conftest import calling, running, until

from nearfar import Settings
from nearfar.core.errors import BodyTimeout, Overloaded
from nearfar.http.connections import Connections
from nearfar.serving.answers import UnreadAnswers
from nearfar.serving.timeouts import CancelScope
from nearfar.serving.uploads import Uploads
from nearfar.telemetry.events import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from litestar.types import Message, Receive, Scope, Send

    from nearfar.http.connections import Peer
    from nearfar.serving.answers import UnreadAnswers
from nearfar.telemetry.events import Event

pytestmark = pytest.mark.anyio

FIRST, SECOND = ("127.0.0.1", "1"), ("127.0.0.1", "2")


class Client:
    """Reads as many messages of a response as the test allows."""

    def __init__(self) -> None:
        self.allowed = asyncio.Semaphore(0)
        self.messages: list[Any] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self.allowed.acquire()
        self.messages.append(message)

    def read(self, messages: int = 1000) -> None:
        for _ in range(messages):
            self.allowed.release()


class Server:
    """The connections, with a clock that the test sets, and the events they report."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.now = 100.0
        self.seen: list[Event] = []
        chosen = Settings(**settings)
        self.uploads = Uploads(chosen.max_upload_bytes, lambda: self.now)
        self.connections = Connections(
            app, chosen, self.seen.append, UnreadAnswers(chosen.max_unread_bytes, 60), self.uploads, lambda: self.now
        )

    def overdue(self, *peers: Peer, after_s: float = 0.0) -> dict[Peer, str]:
        self.now += after_s
        return dict(self.connections.find_overdue(set(peers)))


async def receive() -> Any:
    """Return nothing; no request here has a body."""


def app_of(body: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Any:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app


def scope_of(client: Peer, version: str = "1.1") -> Any:
    return {"type": "http", "client": client, "http_version": version}


@asynccontextmanager
async def unread(server: Server, *clients: Peer, version: str = "1.1") -> AsyncIterator[list[Client]]:
    """Answer a request of each client; those that read nothing read all in the end."""
    readers = [Client() for _ in clients]
    answers = [
        asyncio.create_task(server.connections(scope_of(client, version), receive, reader.send))
        for client, reader in zip(clients, readers, strict=True)
    ]
    await asyncio.sleep(0)
    yield readers
    for reader in readers:
        reader.read()
    await asyncio.gather(*answers)


@pytest.mark.parametrize(("size", "version"), [(131_073, "1.1"), (1_000_000, "1.1"), (4097, "2"), (300_000, "2")])
async def test_a_large_answer_is_sent_in_parts_and_complete(size: int, version: str) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    server = Server(app_of(body))
    async with unread(server, FIRST, version=version) as [client]:
        assert size == server.connections.counts()["unread_bytes"]

    parts = [message["body"] for message in client.messages[1:]]
    assert body == b"".join(parts)
    assert max(map(len, parts)) <= 131_072
    assert [True] * (len(parts) - 1) + [False] == [message["more_body"] for message in client.messages[1:]]
    assert 0 == server.connections.counts()["unread_bytes"]


@pytest.mark.parametrize(("size", "version"), [(131_072, "1.1"), (4096, "2")])
async def test_a_small_answer_is_sent_at_once(size: int, version: str) -> None:
    async with unread(Server(app_of(b"a" * size)), FIRST, version=version) as [client]:
        pass

    assert [size] == [len(message["body"]) for message in client.messages[1:]]


async def test_a_client_that_reads_nothing_is_overdue_after_the_write_timeout() -> None:
    server = Server(app_of(b"a" * 200_000), write_timeout_s=5)
    async with unread(server, FIRST):
        assert {} == server.overdue(FIRST, SECOND, after_s=5)
        assert {FIRST: "unread"} == server.overdue(FIRST, SECOND, after_s=0.1)

    assert [ConnectionClosed(reason="unread")] == server.seen


async def test_a_client_that_reads_slowly_is_not_overdue() -> None:
    server = Server(app_of(b"a" * 1_000_000), write_timeout_s=5)
    async with unread(server, FIRST) as [client]:
        for _ in range(6):
            client.read(1)
            server.now += 4
            await asyncio.sleep(0)
            assert {} == server.overdue(FIRST, after_s=0.5)


async def test_the_slowest_reader_is_overdue_while_too_many_bytes_wait() -> None:
    server = Server(app_of(b"a" * 400_000), max_unread_bytes=900_000)
    async with unread(server, FIRST, SECOND) as [_, reading]:
        reading.read(1)
        await asyncio.sleep(0)

        assert server.connections.unread.is_full
        assert {} == server.overdue(FIRST, SECOND)  # too new
        assert {FIRST: "unread"} == server.overdue(FIRST, SECOND, after_s=1.4)


async def test_a_connection_without_a_request_is_overdue_after_the_keep_alive_timeout() -> None:
    server = Server(app_of(b"a" * 200_000), keep_alive_timeout_s=5)
    async with unread(server, FIRST):
        assert {} == server.overdue(FIRST, SECOND)
        assert {} == server.overdue(FIRST, SECOND, after_s=5)
        assert {SECOND: "idle"} == server.overdue(FIRST, SECOND, after_s=1)


async def test_a_request_ends_the_idle_time() -> None:
    server = Server(app_of(b""), keep_alive_timeout_s=5)
    server.overdue(FIRST)
    async with unread(server, FIRST):
        pass

    assert {} == server.overdue(FIRST, after_s=6)
    assert {FIRST: "idle"} == server.overdue(FIRST, after_s=6)


async def test_the_connection_of_an_error_that_ends_it_is_closed_at_the_second_look() -> None:
    """Granian keeps some of them until the keep-alive timeout, for the rest of the body."""
    for status, expected in ((408, {FIRST: "late_body"}), (200, {})):
        server = Server(app_of(b"", status, ((b"connection", b"close"),)))
        async with unread(server, FIRST):
            pass

        assert {} == server.overdue(FIRST, after_s=1)
        assert expected == server.overdue(FIRST, after_s=1)


async def test_idle_connections_make_room_the_unused_first() -> None:
    used = [("127.0.0.1", str(port)) for port in range(10)]
    unused = [("127.0.0.2", str(port)) for port in range(9)]
    server = Server(app_of(b""))
    server.connections.limit = 20
    async with unread(server, *used):
        pass
    server.overdue(*used, *unused)

    overdue = server.overdue(*used, *unused, after_s=3)

    assert ["limit"] * 9 == list(overdue.values())
    assert overdue.keys() == {*unused}


async def test_slow_uploads_end_where_connections_are_scarce_the_oldest_first() -> None:
    peers = [("127.0.0.1", str(port)) for port in range(19)]
    server = Server(app_of(b""))
    ended: list[str] = []

    async def upload(name: str) -> None:
        try:
            with CancelScope() as scope:
                server.uploads.arrivals[scope] = server.now
                await asyncio.Event().wait()
        except BodyTimeout:
            ended.append(name)

    async with asyncio.TaskGroup() as tasks:
        uploads = [tasks.create_task(upload(name)) for name in ("old", "slow")]
        await asyncio.sleep(0)
        server.now += 3
        uploads.append(tasks.create_task(upload("new")))
        await asyncio.sleep(0)
        for limit, expected in ((100, []), (18, ["old", "slow"])):  # at first there are enough
            server.connections.limit = limit
            server.overdue(*peers)
            await asyncio.wait(uploads, timeout=0.01)
            assert expected == ended
        uploads[-1].cancel()


async def test_closed_connections_are_forgotten() -> None:
    server = Server(app_of(b""))
    server.overdue(FIRST, SECOND)

    server.overdue(SECOND)

    assert 1 == server.connections.counts()["connections"]


async def test_a_large_answer_is_rendered_once_there_is_room() -> None:
    unread, order = UnreadAnswers(100, 60), []
    unread.add(150)

    async def render() -> None:
        async with unread.room_for(100_000):
            order.append("rendered")

    rendering = asyncio.create_task(render())
    await asyncio.sleep(0)
    order.append("read")
    unread.add(-100)
    await rendering

    assert ["read", "rendered"] == order


@pytest.mark.parametrize(("timeout_s", "waiting"), [(60.0, 3), (0.0, 0)])
async def test_results_that_wait_to_be_rendered_are_bounded_in_bytes_and_time(timeout_s: float, waiting: int) -> None:
    unread = UnreadAnswers(1_600_000, timeout_s)
    unread.add(2_000_000)

    async def render() -> None:
        async with unread.room_for(33_000):
            pass

    async with asyncio.TaskGroup() as tasks:
        rendering = [tasks.create_task(_refused(render())) for _ in range(10)]
        await until(lambda: 10 - waiting == sum(task.done() for task in rendering))
        assert 132_000 * waiting == unread.waiting_bytes
        unread.add(-2_000_000)

    assert 10 - waiting == sum(task.result() for task in rendering)


async def test_results_of_large_answers_count_before_they_are_computed() -> None:
    """Requests of equal texts all end with the same batch, and their results would be there at once."""
    body = {"model": "text-embedding-3-small", "input": ["a"] * 200}
    async with running(Settings(engine="fake", max_unread_bytes=2_000_000)) as app, calling(app) as client:
        answers = await asyncio.gather(*(client.post("/v1/embeddings", json=body) for _ in range(10)))
        unread = app.state.connections.unread
        assert 0 == unread.waiting_bytes == unread.unread_bytes

    assert [200] + 9 * [429] == sorted(answer.status_code for answer in answers)
    assert all("max_unread_bytes" in answer.text for answer in answers if answer.status_code == 429)


async def _refused(work: Awaitable[None]) -> bool:
    """Do work. Return whether it was refused."""
    try:
        await work
    except Overloaded as error:
        return "max_unread_bytes" in str(error)
    return False
