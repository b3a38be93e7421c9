"""How many bytes of bodies may arrive at once."""

from __future__ import annotations

import asyncio

import pytest

from nearfar.core.errors import BodyTimeout
from nearfar.serving.timeouts import CancelScope
from nearfar.serving.uploads import Upload, Uploads

pytestmark = pytest.mark.anyio


class Arriving:
    """Bodies that arrive in tasks of their own, by a clock that the test sets."""

    def __init__(self, max_bytes: int) -> None:
        self.now = 100.0
        self.uploads = Uploads(max_bytes, lambda: self.now)
        self.begun: list[Upload] = []

    def start(self, size: int, end: asyncio.Event) -> asyncio.Task[None]:
        async def arrive() -> None:
            with CancelScope() as scope:
                upload = await self.uploads.reserve(size, 1, scope)
                self.begun.append(upload)
                try:
                    await end.wait()
                finally:
                    self.uploads.release(upload)

        return asyncio.create_task(arrive())


async def test_bodies_wait_in_order_until_there_is_room() -> None:
    arriving, ends = Arriving(10), [asyncio.Event() for _ in range(3)]
    tasks = [arriving.start(size, end) for size, end in zip((6, 6, 3), ends, strict=True)]
    await asyncio.sleep(0)

    assert [6] == [upload.size for upload in arriving.begun]
    ends[0].set()
    await tasks[0]
    ends[1].set()
    ends[2].set()
    await asyncio.gather(*tasks)

    assert [6, 6, 3] == [upload.size for upload in arriving.begun]
    assert 0 == arriving.uploads.reserved_bytes


async def test_a_body_larger_than_all_room_arrives_alone() -> None:
    arriving, end = Arriving(10), asyncio.Event()
    end.set()

    await arriving.start(1000, end)

    assert 0 == arriving.uploads.reserved_bytes


async def test_a_stalled_body_makes_room_for_one_that_waits() -> None:
    arriving, ends = Arriving(10), [asyncio.Event() for _ in range(2)]
    stalled = arriving.start(6, ends[0])
    await asyncio.sleep(0)
    arriving.now += 3
    waiting = arriving.start(6, ends[1])
    ends[1].set()

    with pytest.raises(BodyTimeout):
        await stalled
    await waiting

    assert 2 == len(arriving.begun)


async def test_a_slow_body_is_left_alone_while_nothing_waits() -> None:
    arriving, end = Arriving(10), asyncio.Event()
    slow = arriving.start(6, end)
    await asyncio.sleep(0)
    arriving.now += 50
    small = arriving.start(4, end)
    end.set()

    await asyncio.gather(slow, small)


@pytest.mark.parametrize(
    ("received", "after_s", "expected"), [(0, 1.9, False), (1_000_000, 2.1, False), (100_000, 2.1, True)]
)
async def test_a_body_is_stalled_if_it_is_slow_on_average(received: int, after_s: float, expected: bool) -> None:
    arriving = Arriving(10)
    upload = await arriving.uploads.reserve(5, 0, CancelScope())

    arriving.now += after_s
    arriving.uploads.record(upload, received)

    assert expected == upload.is_stalled(arriving.now)
