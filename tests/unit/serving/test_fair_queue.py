"""Fair queueing: callers share the engine evenly however much each sends; lower priority gets less, never nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from nearfar.core.caller import Caller
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.batch import QueuedRequest
from nearfar.serving.queue.scheduler import Scheduler

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


async def test_what_runs_before_a_request_counts_its_caller_s_queue_and_equal_shares_of_the_others(
    scheduler: Scheduler,
) -> None:
    """A short request overtakes a caller's bulk; of another caller only as many tokens run as of its own."""
    for caller, rows in (("one", 100), ("one", 50), ("two", 10), ("three", 500)):
        scheduler.add(request(caller, rows))

    before = [scheduler.tokens_before(request("one", rows)) // 16 for rows in (200, 60, 1)]

    assert [150 + 10 + 350, 50 + 10 + 110, 0 + 1 + 1] == before


async def test_requests_that_can_not_be_answered_in_time_any_more_are_found_before_they_begin(
    scheduler: Scheduler,
) -> None:
    now = time.perf_counter()
    requests = [request("one", 50) for _ in range(4)]
    for one in requests:
        one.stopwatch.deadline = now + 2.5
        scheduler.add(one)
    scheduler.next_batch(64)

    late = [(found, before) for found, before in scheduler.find_late(800.0, now)]
    none = [*scheduler.find_late(8000.0, now)]

    assert [(requests[2], 1600 - 64), (requests[3], 1600 - 64)] == late
    assert [] == none


@pytest.mark.parametrize("callers", [("one", "one"), ("one", "two")])
async def test_rows_of_a_cancelled_request_never_run(scheduler: Scheduler, callers: tuple[str, str]) -> None:
    waits, cancelled = (request(caller, 2) for caller in callers)
    scheduler.add(waits)
    scheduler.add(cancelled)
    cancelled.future.cancel()

    ran = [queued.request for _ in range(3) for queued in scheduler.next_batch(64)]

    assert [waits, waits] == ran
    assert 0 == scheduler.count_rows()


async def test_what_waits_is_never_less_than_what_runs_before_a_request(scheduler: Scheduler) -> None:
    """A request that fits behind all of it needs no exact forecast."""
    scheduler.add(request("many", 50))
    scheduler.add(request("one", 20))
    assert 70 * 16 == scheduler.count_tokens()

    ran = tokens_run(scheduler, 3)

    assert 70 * 16 - ran.total() == scheduler.count_tokens()
    for caller in ("many", "one", "other"):
        assert scheduler.tokens_before(request(caller, 200)) <= scheduler.count_tokens()
