"""Who is let into a queue, and when whoever isn't should come back. The clock is the test's own."""

from __future__ import annotations

import heapq
import itertools
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.errors import Overloaded
from nearfar.serving.queue.admission import Admission, QueueLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

NEW, BACK = Caller(retries=0), Caller(retries=1)


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def admission(clock: Clock, *, tokens: int = 1000, requests: int = 100, rate: float = 100.0) -> Admission:
    return Admission("fake", QueueLimits(tokens=tokens, requests=requests), lambda: rate, clock)


def refused_s(queue: Admission, tokens: int, caller: Caller = ANONYMOUS) -> float:
    with pytest.raises(Overloaded) as caught, queue.admit(tokens, caller):
        pass
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_what_is_in_the_queue_is_counted_for_as_long_as_it_is_there(clock: Clock) -> None:
    queue = admission(clock)

    with queue.admit(300, ANONYMOUS), queue.admit(900, ANONYMOUS):  # the second is charged half of the queue
        capacity = queue.capacity()

    assert (1000, 200, 100, 98, 8.0) == (
        capacity.tokens_limit,
        capacity.tokens_free,
        capacity.requests_limit,
        capacity.requests_free,
        capacity.drain_s,
    )
    assert (0, 0) == (queue.tokens, queue.requests)


def test_requests_are_bounded_as_well(clock: Clock, held: ExitStack) -> None:
    queue = admission(clock, requests=2)
    for _ in range(2):
        held.enter_context(queue.admit(1, ANONYMOUS))

    assert 0.5 == refused_s(queue, 1)  # there is next to nothing to wait for


def test_those_who_are_refused_come_back_one_after_the_other(clock: Clock, held: ExitStack) -> None:
    queue = admission(clock)
    held.enter_context(queue.admit(500, ANONYMOUS))
    held.enter_context(queue.admit(500, ANONYMOUS))

    assert [11.0, 12.0, 15.0] == [refused_s(queue, tokens) for tokens in (100, 100, 300)]

    clock.now += 30  # nobody is expected any more
    assert 11.0 == refused_s(queue, 100)


def test_nobody_is_sent_away_for_longer_than_clients_wait(clock: Clock, held: ExitStack) -> None:
    queue = admission(clock, rate=10.0)
    held.enter_context(queue.admit(500, ANONYMOUS))
    held.enter_context(queue.admit(500, ANONYMOUS))

    times = [refused_s(queue, 100) for _ in range(20)]

    assert all(30 <= time <= 60 for time in times)
    assert len(set(times)) > 10
    clock.now += 1
    assert 0 == queue._expected()


def test_before_a_batch_has_run_the_time_is_a_guess(clock: Clock, held: ExitStack) -> None:
    queue = admission(clock, rate=0.0)
    held.enter_context(queue.admit(500, ANONYMOUS))
    held.enter_context(queue.admit(500, ANONYMOUS))

    assert queue.capacity().drain_s is None
    assert 1.0 == refused_s(queue, 1)


def test_who_was_told_to_come_back_finds_room_before_newcomers(clock: Clock) -> None:
    queue = admission(clock)
    with queue.admit(400, ANONYMOUS):
        with queue.admit(500, ANONYMOUS):
            clock.now += refused_s(queue, 300, NEW)
        refused_s(queue, 200, NEW)  # half of the queue is kept
        with queue.admit(300, BACK), queue.admit(200, ANONYMOUS):
            assert 900 == queue.tokens
        clock.now += 60
        with queue.admit(500, NEW):  # nobody is expected: it is theirs
            assert 900 == queue.tokens


def test_who_would_give_up_may_overfill_the_queue_by_half(clock: Clock, held: ExitStack) -> None:
    queue = admission(clock)
    for _ in range(2):
        held.enter_context(queue.admit(500, ANONYMOUS))
    last = Caller(retries=2)

    refused_s(queue, 100, BACK)
    with queue.admit(400, last), queue.admit(100, last):
        refused_s(queue, 1, last)


def test_those_who_do_not_come_back_keep_nobody_out_of_an_empty_queue(clock: Clock) -> None:
    queue = admission(clock)
    with queue.admit(500, ANONYMOUS), queue.admit(500, ANONYMOUS):
        for _ in range(20):
            refused_s(queue, 100)
    clock.now += 10

    with queue.admit(500, NEW), queue.admit(500, NEW):
        assert 11.0 == refused_s(queue, 100, NEW)


def test_who_fills_the_queue_keeps_no_other_caller_out(clock: Clock, held: ExitStack) -> None:
    queue = admission(clock)
    much, little, third = (Caller(name=name) for name in ("much", "little", "third"))
    for _ in range(2):
        held.enter_context(queue.admit(500, much))

    refused_s(queue, 1, much)
    with queue.admit(400, little):
        refused_s(queue, 200, little)  # half of the queue is its share
        with queue.admit(300, third):
            refused_s(queue, 50, third)  # and now a third
            assert (1700, 0) == (queue.tokens, queue.capacity().tokens_free)
    assert 1000 == queue.tokens


def test_texts_that_will_not_fit_are_refused_unread(clock: Clock) -> None:
    queue = admission(clock)
    with queue.admit(500, ANONYMOUS), queue.admit(450, ANONYMOUS):
        queue.refuse_hopeless(1_000_000, ANONYMOUS)  # how many tokens that is, nobody knows yet
        queue.learn(400, 100)
        queue.refuse_hopeless(200, ANONYMOUS)
        with pytest.raises(Overloaded):
            queue.refuse_hopeless(300, ANONYMOUS)
        queue.learn(0, 3)  # an empty text tells nothing

    queue.refuse_hopeless(1_000_000, ANONYMOUS)  # whatever its size, an empty queue takes it


@pytest.mark.parametrize(("capacity", "times"), [(11, 2), (100, 2), (1000, 2), (11, 3), (100, 3)])
@pytest.mark.parametrize("wrong", [0.8, 1.0, 1.2])
def test_clients_that_try_three_times_get_everything_through(
    clock: Clock, capacity: int, times: int, wrong: float
) -> None:
    """Simulated, as OpenAI's clients do it: two retries, when they are told to. The queue holds some seconds' work.

    The pace that is measured isn't quite that at which the queue empties.
    """
    cost = 1000
    queue = admission(clock, tokens=2 * capacity * cost, requests=10**6, rate=wrong * capacity * cost)
    rng = random.Random(1)  # noqa: S311 — the same in every run
    number = itertools.count()
    events: list[tuple[float, int, int]] = []  # when, which, how often tried; -1: one leaves the queue
    due = clock.now
    while due < clock.now + 30:
        due += rng.expovariate(times * capacity)
        events.append((due, next(number), 0))
    began, sent = clock.now, len(events)
    heapq.heapify(events)
    inside: list[ExitStack] = []
    lost, free_at = 0, clock.now

    while events:
        clock.now, _, tries = heapq.heappop(events)
        if tries < 0:
            inside.pop(0).close()
            continue
        stack = ExitStack()
        try:
            stack.enter_context(queue.admit(cost, Caller(retries=tries)))
        except Overloaded as error:
            wait_s = error.retry_after_s or 0
            assert 0 < wait_s <= 60
            if tries == 2:
                lost += 1
            else:
                heapq.heappush(events, (clock.now + wait_s, next(number), tries + 1))
        else:
            inside.append(stack)
            free_at = max(free_at, clock.now) + 1 / capacity
            heapq.heappush(events, (free_at, next(number), -1))

    assert (0, []) == (lost, inside)
    assert clock.now - began < 1.2 * sent / capacity  # and the engine hardly ever waited for them
