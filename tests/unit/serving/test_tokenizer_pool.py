"""Short texts of several requests are tokenized together, and each request gets its own result."""

from __future__ import annotations

import asyncio

import pytest

from nearfar.core.errors import EmptyInput
from nearfar.serving.pipeline.encoding import TokenizerPool

pytestmark = pytest.mark.anyio


def _fail() -> str:
    raise EmptyInput("no text")


async def test_a_request_that_is_cancelled_or_fails_does_not_stop_those_tokenized_with_it() -> None:
    pool = TokenizerPool()
    cancelled = asyncio.create_task(pool.run(1, lambda: "cancelled"))
    failed = asyncio.create_task(pool.run(1, _fail))
    answered = asyncio.create_task(pool.run(1, lambda: "answered"))
    await asyncio.sleep(0)  # all three wait now
    cancelled.cancel()

    async with asyncio.timeout(30):
        assert "answered" == await answered
        with pytest.raises(EmptyInput):
            await failed
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    pool.close()
