"""Fair queueing: callers share the engine evenly however much each sends; lower priority gets less, never nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from nearfar.core.caller import Caller
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.scheduler import QueuedRequest, Scheduler

pytestmark = pytest.mark.anyio


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(batch_tokens=64, max_padding=0)


def request(caller: str, rows: int, length: int = 16, priority: int = 0) -> QueuedRequest:
    distinct = [Row([number + 1] * length, None, length, 0) for number in range(rows)]
    future = asyncio.get_running_loop().create_future()
    return QueuedRequest(distinct, future, caller=Caller(name=caller, priority=priority))


def tokens_run(scheduler: Scheduler, batches: int) -> Counter[str]:
    """Run batches, and return the tokens that ran for each caller."""
    ran: Counter[str] = Counter()
    for _ in range(batches):
        for queued in scheduler.next_batch(64):
            ran[queued.request.caller] += queued.tokens
    return ran


async def test_many_requests_of_one_caller_get_no_more_than_one_request_of_another(scheduler: Scheduler) -> None:
    for _ in range(30):
        scheduler.add(request("many", 50))
    scheduler.add(request("one", 200))

    ran = tokens_run(scheduler, 40)

    assert 0.9 <= ran["many"] / ran["one"] <= 1.1


async def test_callers_are_charged_by_tokens_and_not_by_rows(scheduler: Scheduler) -> None:
    scheduler.add(request("long", 400, length=60))
    scheduler.add(request("short", 4000, length=4))

    ran = tokens_run(scheduler, 200)

    assert 0.9 <= ran["long"] / ran["short"] <= 1.1


async def test_a_small_request_is_next_despite_a_caller_with_a_thousand(scheduler: Scheduler) -> None:
    for _ in range(1000):
        scheduler.add(request("bulk", 4))
    tokens_run(scheduler, 5)
    scheduler.add(request("small", 1))

    ran = tokens_run(scheduler, 1)

    assert 16 == ran["small"]


async def test_a_caller_that_was_idle_returns_without_credit(scheduler: Scheduler) -> None:
    scheduler.add(request("stays", 1000))
    scheduler.add(request("leaves", 4))
    tokens_run(scheduler, 100)
    scheduler.add(request("leaves", 1000))

    ran = tokens_run(scheduler, 40)

    assert 0.9 <= ran["stays"] / ran["leaves"] <= 1.1


async def test_leaving_for_a_moment_pays_no_debt(scheduler: Scheduler) -> None:
    scheduler.add(request("steady", 1000))
    ran: Counter[str] = Counter()
    for _ in range(50):
        scheduler.add(request("again", 4))  # one full batch, then it is gone
        ran += tokens_run(scheduler, 2)

    assert 0.8 <= ran["steady"] / ran["again"] <= 1.2


@pytest.mark.parametrize(("priority", "ratio"), [(100, 2), (999, 11)])
async def test_less_urgent_requests_get_less_and_never_starve(scheduler: Scheduler, priority: int, ratio: int) -> None:
    scheduler.add(request("now", 5000))
    scheduler.add(request("later", 5000, priority=priority))

    ran = tokens_run(scheduler, 480)

    assert 0.85 * ratio <= ran["now"] / ran["later"] <= 1.15 * ratio


async def test_the_requests_of_one_caller_take_turns(scheduler: Scheduler) -> None:
    requests = [request("one", 50, length=16) for _ in range(5)]
    for one in requests:
        scheduler.add(one)

    next_requests = {id(scheduler.next_batch(64)[0].request) for _ in range(5)}

    assert {id(one) for one in requests} == next_requests


@pytest.mark.parametrize("callers", [("one", "one"), ("one", "two")])
async def test_rows_of_a_cancelled_request_never_run(scheduler: Scheduler, callers: tuple[str, str]) -> None:
    waits, cancelled = (request(caller, 2) for caller in callers)
    scheduler.add(waits)
    scheduler.add(cancelled)
    cancelled.future.cancel()

    ran = [queued.request for _ in range(3) for queued in scheduler.next_batch(64)]

    assert [waits, waits] == ran
    assert 0 == scheduler.count_rows()
