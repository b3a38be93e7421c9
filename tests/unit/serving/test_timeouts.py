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


async def test_a_discarded_callback_is_never_called_and_ticking_ends() -> None:
    timeouts, called = Timeouts(0.001), []

    del timeouts.pending[timeouts.add(0.0, lambda: called.append("discarded"))]
    timeouts.add(0.0, lambda: called.append("due"))
    await until(lambda: not timeouts._is_ticking)
    timeouts.add(0.0, lambda: called.append("later"))
    await until(lambda: not timeouts._is_ticking)

    assert ["due", "later"] == called
