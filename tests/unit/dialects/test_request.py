"""A request's work ends when its client disconnects."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from nearfar.core.errors import ClientDisconnected
from nearfar.dialects.kit.request import cancel_on_disconnect
from nearfar.serving.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")
pytestmark = pytest.mark.anyio


class Connection:
    """A request of a client that disconnects when the test sets ``closed``, or of a connection that fails then."""

    def __init__(self, *, fails: bool = False) -> None:
        self.closed = asyncio.Event()
        self.fails = fails
        self.scope = {"state": {"server": SimpleNamespace(timeouts=Timeouts())}}

    async def receive(self) -> dict[str, str]:
        await self.closed.wait()
        if self.fails:
            raise RuntimeError("the connection can't be read")
        return {"type": "http.disconnect"}


async def _run(connection: Any, work: Coroutine[Any, Any, _T]) -> _T:
    with cancel_on_disconnect(connection):
        return await work


@pytest.mark.parametrize("fails", [False, True])
async def test_work_is_cancelled_when_the_client_disconnects(*, fails: bool) -> None:
    connection: Any = Connection(fails=fails)
    cancelled = asyncio.Event()

    async def work() -> None:
        connection.closed.set()
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    async def call() -> int:
        with pytest.raises(ClientDisconnected):
            await _run(connection, work())
        task = asyncio.current_task()
        return task.cancelling() if task else -1

    assert 0 == await asyncio.create_task(call())
    assert cancelled.is_set()


async def test_a_disconnect_is_distinguished_from_an_earlier_cancellation() -> None:
    connection: Any = Connection()

    async def work() -> None:
        connection.closed.set()
        await asyncio.sleep(30)

    async def call() -> int:
        task = asyncio.current_task()
        assert task
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        with pytest.raises(ClientDisconnected):
            await _run(connection, work())
        return task.cancelling()

    assert 1 == await asyncio.create_task(call())


async def test_the_result_or_the_exception_of_the_work_is_returned() -> None:
    async def work(failure: Exception | None) -> int:
        await asyncio.sleep(0)
        if failure:
            raise failure
        return 7

    connection: Any = Connection()
    assert 7 == await _run(connection, work(None))
    with pytest.raises(ValueError, match="a failure"):
        await _run(connection, work(ValueError("a failure")))


async def test_a_cancelled_request_stays_cancelled() -> None:
    connection: Any = Connection()
    calling = asyncio.create_task(_run(connection, asyncio.sleep(30)))
    await asyncio.sleep(0)

    calling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await calling
