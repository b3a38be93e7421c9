"""Callers share the engine evenly, however much each sends; the less urgent get less, and nobody nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from nearfar.core.caller import Caller
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.scheduler import Budget, Round, Ticket

pytestmark = pytest.mark.anyio

BUDGET = Budget(full=64, bulk=64, max_padding=0, idle=1)


def ticket(caller: str, rows: int, length: int = 16, priority: int = 0) -> Ticket:
    same = [Row([number + 1] * length, None, length, 0) for number in range(rows)]
    future = asyncio.get_running_loop().create_future()
    return Ticket(same, future, caller=Caller(name=caller, priority=priority))


def tokens_run(waiting: Round, batches: int) -> Counter[str]:
    """Count the tokens that ran for each caller."""
    ran: Counter[str] = Counter()
    for _ in range(batches):
        for place in waiting.next_batch(BUDGET):
            ran[place.ticket.caller] += len(place.row.ids)
    return ran


async def test_many_requests_of_one_caller_get_no_more_than_one_of_another() -> None:
    waiting = Round()
    for _ in range(30):
        waiting.add(ticket("many", 50))
    waiting.add(ticket("one", 200))

    ran = tokens_run(waiting, 40)

    assert 0.9 <= ran["many"] / ran["one"] <= 1.1


async def test_rows_of_another_length_cost_what_they_cost() -> None:
    waiting = Round()
    waiting.add(ticket("long", 400, length=60))
    waiting.add(ticket("short", 4000, length=4))

    ran = tokens_run(waiting, 200)

    assert 0.9 <= ran["long"] / ran["short"] <= 1.1


async def test_a_small_request_is_next_beside_a_caller_with_a_thousand() -> None:
    waiting = Round()
    for _ in range(1000):
        waiting.add(ticket("bulk", 4))
    tokens_run(waiting, 5)
    waiting.add(ticket("small", 1))

    ran = tokens_run(waiting, 1)

    assert 16 == ran["small"]


async def test_who_was_away_comes_back_without_credit() -> None:
    waiting = Round()
    waiting.add(ticket("stays", 1000))
    waiting.add(ticket("leaves", 4))
    tokens_run(waiting, 100)
    waiting.add(ticket("leaves", 1000))

    ran = tokens_run(waiting, 40)

    assert 0.9 <= ran["stays"] / ran["leaves"] <= 1.1


async def test_going_away_for_a_moment_pays_no_debt() -> None:
    waiting = Round()
    waiting.add(ticket("steady", 1000))
    ran: Counter[str] = Counter()
    for _ in range(50):
        waiting.add(ticket("again", 4))  # a batch full, and gone
        ran += tokens_run(waiting, 2)

    assert 0.8 <= ran["steady"] / ran["again"] <= 1.2


@pytest.mark.parametrize(("priority", "share"), [(100, 2), (999, 11)])
async def test_less_urgent_requests_get_less_and_are_never_starved(priority: int, share: int) -> None:
    waiting = Round()
    waiting.add(ticket("now", 5000))
    waiting.add(ticket("later", 5000, priority=priority))

    ran = tokens_run(waiting, 480)

    assert 0.85 * share <= ran["now"] / ran["later"] <= 1.15 * share


async def test_a_callers_own_requests_take_turns() -> None:
    waiting = Round()
    tickets = [ticket("one", 50, length=16) for _ in range(5)]
    for one in tickets:
        waiting.add(one)

    turns = {id(waiting.next_batch(BUDGET)[0].ticket) for _ in range(5)}

    assert {id(one) for one in tickets} == turns


async def test_requests_that_nobody_waits_for_leave_no_trace() -> None:
    waiting = Round()
    gone = ticket("gone", 50)
    waiting.add(gone)
    gone.future.cancel()

    assert [] == waiting.next_batch(BUDGET)
    assert 0 == waiting.rows()
