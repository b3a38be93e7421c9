"""Timeouts: a block is cancelled when its time is over, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest
from conftest import until

from nearfar.serving.timeouts import CancelScope, Timeouts

pytestmark = pytest.mark.anyio


async def test_a_block_over_its_time_raises_timeout_error() -> None:
    timeouts = Timeouts(0.001)

    with pytest.raises(TimeoutError), CancelScope(timeouts, 0.005):
        await asyncio.sleep(30)
    with CancelScope(timeouts, 30):
        await asyncio.sleep(0.01)


async def test_the_innermost_block_over_its_time_raises() -> None:
    timeouts, passed = Timeouts(0.001), []

    with CancelScope(timeouts, 30):
        with pytest.raises(TimeoutError), CancelScope(timeouts, 0.005):
            await asyncio.sleep(30)
        passed.append("the outer one goes on")
        await asyncio.sleep(0.01)

    assert passed


async def test_a_scope_raises_its_error_and_passes_on_other_cancellations() -> None:
    async def call(scope: CancelScope) -> None:
        with scope:
            scope.error = LookupError("gone")
            await asyncio.sleep(30)

    for cancel, error in ((CancelScope.cancel, LookupError), (None, asyncio.CancelledError)):
        scope = CancelScope()
        task = asyncio.create_task(call(scope))
        await asyncio.sleep(0)
        cancel(scope) if cancel else task.cancel()
        with pytest.raises(error):
            await task


async def test_a_scope_that_has_ended_never_times_out_and_ticking_ends() -> None:
    timeouts, timed_out = Timeouts(0.001), []

    async def watch(scope: CancelScope) -> None:
        timed_out.append(scope)

    with CancelScope(timeouts, 0.0, watch):
        pass
    later = [CancelScope(timeouts, 0.0, watch) for _ in range(2)]
    for scope in later:
        with scope:
            await until(lambda: not timeouts.is_ticking and scope in timed_out)  # noqa: B023 — awaited here

    assert later == timed_out
