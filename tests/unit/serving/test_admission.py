"""Admission control: the queue's limits, equal shares, and retry-after. The test moves the clock."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.errors import Overloaded
from nearfar.serving.queue.admission import Admission, QueueLimits


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admission(clock: Clock, *, tokens: int = 1000, requests: int = 100, rate: float = 100.0) -> Admission:
    return Admission("fake", QueueLimits(tokens=tokens, requests=requests), lambda: rate, clock)


def retry_after_s(queue: Admission, tokens: int, caller: Caller = ANONYMOUS) -> float:
    """Check that the queue refuses the request, and return its retry-after."""
    with pytest.raises(Overloaded) as caught:
        queue.admit(tokens, caller)
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_a_request_counts_until_it_is_released(clock: Clock) -> None:
    queue = admission(clock)

    charges = [queue.admit(tokens, ANONYMOUS) for tokens in (300, 900)]  # the second is charged half of the queue
    capacity = queue.capacity()
    for charge in charges:
        queue.release(charge, ANONYMOUS)

    assert [300, 500] == charges
    assert (1000, 200) == (capacity.tokens_limit, capacity.tokens_free)
    assert (100, 98, 8.0) == (capacity.requests_limit, capacity.requests_free, capacity.drain_s)
    assert (0, 0) == (queue.tokens, queue.requests)


def test_the_number_of_requests_is_bounded_as_well(clock: Clock) -> None:
    queue = admission(clock, requests=2)
    for _ in range(2):
        queue.admit(1, ANONYMOUS)

    assert 0.5 == retry_after_s(queue, 1)  # the least: the queue is all but empty


def test_refused_requests_are_asked_to_retry_one_after_another(clock: Clock) -> None:
    queue = admission(clock)
    queue.admit(500, ANONYMOUS)
    queue.admit(500, ANONYMOUS)

    assert [11.0, 12.0, 15.0] == [retry_after_s(queue, tokens) for tokens in (100, 100, 300)]

    clock.now += 30  # all of them could have run since
    assert 11.0 == retry_after_s(queue, 100)


def test_an_empty_queue_forgets_what_it_refused(clock: Clock) -> None:
    queue = admission(clock)
    charges = [queue.admit(500, ANONYMOUS) for _ in range(2)]
    for _ in range(20):
        retry_after_s(queue, 100)
    for charge in charges:
        queue.release(charge, ANONYMOUS)

    for _ in range(2):
        queue.admit(500, ANONYMOUS)
    assert 11.0 == retry_after_s(queue, 100)


def test_retry_after_never_exceeds_what_clients_accept(clock: Clock) -> None:
    queue = admission(clock, rate=10.0)
    for _ in range(2):
        queue.admit(500, ANONYMOUS)

    assert [60.0] * 20 == [retry_after_s(queue, 100) for _ in range(20)]
    clock.now += 1
    assert 60.0 == retry_after_s(queue, 100)


def test_before_a_batch_has_run_retry_after_is_a_guess(clock: Clock) -> None:
    queue = admission(clock, rate=0.0)
    for _ in range(2):
        queue.admit(500, ANONYMOUS)

    assert queue.capacity().drain_s is None
    assert 1.0 == retry_after_s(queue, 1)


def test_the_last_attempt_may_exceed_the_limit_by_half(clock: Clock) -> None:
    queue = admission(clock)
    for _ in range(2):
        queue.admit(500, ANONYMOUS)

    retry_after_s(queue, 100, Caller(retries=1))
    last = Caller(retries=2)
    queue.admit(400, last)
    queue.admit(100, last)
    retry_after_s(queue, 1, last)


def test_a_caller_that_fills_the_queue_does_not_lock_the_others_out(clock: Clock) -> None:
    queue = admission(clock)
    first, second, third = (Caller(name=name) for name in ("first", "second", "third"))
    for _ in range(2):
        queue.admit(500, first)

    retry_after_s(queue, 1, first)
    queue.admit(400, second)
    retry_after_s(queue, 200, second)  # its share is half of the queue
    queue.admit(300, third)
    retry_after_s(queue, 50, third)  # and now a third
    assert (1700, 0) == (queue.tokens, queue.capacity().tokens_free)


@pytest.mark.parametrize(("capacity", "times"), [(11, 2), (100, 2), (1000, 2), (11, 3), (100, 3)])
@pytest.mark.parametrize("measured", [0.8, 1.0, 1.2])
def test_hardly_a_client_that_retries_twice_gives_up(clock: Clock, capacity: int, times: int, measured: float) -> None:
    """Simulated for 30 s at ``times`` the capacity: two retries after retry-after, as OpenAI's clients do.

    The queue's limit is 2 s of work; the throughput it knows is off by up to a fifth. Plain jitter loses 38 to 61 %.
    """
    cost = 1000
    queue = admission(clock, tokens=2 * capacity * cost, requests=10**6, rate=measured * capacity * cost)
    rng = random.Random(1)  # noqa: S311 — the same in every run
    number = itertools.count()
    events: list[tuple[float, int, int]] = []  # when, which, retries; -1: one leaves the queue
    due = began = clock.now
    while due < began + 30:
        due += rng.expovariate(times * capacity)
        events.append((due, next(number), 0))
    sent, lost, free_at = len(events), 0, began

    while events:
        clock.now, _, retries = heapq.heappop(events)
        if retries < 0:
            queue.release(cost, ANONYMOUS)
            continue
        try:
            queue.admit(cost, Caller(retries=retries))
        except Overloaded as error:
            lost += retries == 2
            if retries < 2 and error.retry_after_s:
                heapq.heappush(events, (clock.now + error.retry_after_s, next(number), retries + 1))
        else:
            free_at = max(free_at, clock.now) + 1 / capacity
            heapq.heappush(events, (free_at, next(number), -1))

    assert lost <= 0.015 * sent
    assert queue.requests == 0
    assert clock.now - began < 1.3 * sent / capacity  # the engine is hardly ever idle
