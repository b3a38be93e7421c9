"""Work goes on for as long as its caller stays, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nearfar.core.errors import ClientDisconnected
from nearfar.dialects.kit.request import cancel_on_disconnect

pytestmark = pytest.mark.anyio


class Caller:
    """A request whose caller leaves, or whose connection breaks, when told to."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.leaves = asyncio.Event()
        self.breaks = breaks

    async def receive(self) -> dict[str, str]:
        await self.leaves.wait()
        if self.breaks:
            raise RuntimeError("the connection can't be heard any more")
        return {"type": "http.disconnect"}


@pytest.mark.parametrize("breaks", [False, True])
async def test_who_leaves_has_their_work_dropped(*, breaks: bool) -> None:
    caller: Any = Caller(breaks=breaks)
    dropped = asyncio.Event()

    async def work() -> None:
        caller.leaves.set()
        try:
            await asyncio.sleep(30)
        finally:
            dropped.set()

    with pytest.raises(ClientDisconnected):
        await cancel_on_disconnect(caller, work())
    assert dropped.is_set()
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()


async def test_who_stays_gets_the_answer_or_the_fault() -> None:
    async def work(fault: Exception | None) -> int:
        await asyncio.sleep(0)
        if fault:
            raise fault
        return 7

    caller: Any = Caller()
    assert 7 == await cancel_on_disconnect(caller, work(None))
    with pytest.raises(ValueError, match="a fault"):
        await cancel_on_disconnect(caller, work(ValueError("a fault")))


async def test_a_cancelled_request_stays_cancelled() -> None:
    caller: Any = Caller()
    calling = asyncio.create_task(cancel_on_disconnect(caller, asyncio.sleep(30)))
    await asyncio.sleep(0)

    calling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await calling
