"""A caller's rate limit: concurrent requests, tokens per minute, and when to retry."""

from __future__ import annotations

import pytest
from conftest import running

from nearfar import Settings
from nearfar.core.caller import Caller, RateLimit
from nearfar.core.errors import Overloaded
from nearfar.models.tokenization.row import Row
from nearfar.serving.access import RequestContext

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_limits_every_request_is_admitted() -> None:
    rate_limit = RateLimit()

    for _ in range(1000):
        rate_limit.acquire()
        rate_limit.spend(1_000_000)


def test_one_concurrent_request_too_many_is_refused_until_another_has_ended() -> None:
    rate_limit = RateLimit(max_concurrent=2)
    rate_limit.acquire()
    rate_limit.acquire()

    with pytest.raises(Overloaded, match="2 requests at once"):
        rate_limit.acquire()
    rate_limit.release()
    rate_limit.acquire()


def test_tokens_refill_evenly_and_the_refusal_has_the_time_to_retry_after() -> None:
    clock = Clock()
    rate_limit = RateLimit(tokens_per_minute=600, clock=clock)
    rate_limit.spend(600)

    with pytest.raises(Overloaded) as refused:
        rate_limit.spend(100)
    clock.now += 9.9
    with pytest.raises(Overloaded):
        rate_limit.spend(100)
    clock.now += 0.2
    rate_limit.spend(100)

    assert 10 == refused.value.retry_after_s


def test_a_refusal_costs_no_tokens() -> None:
    rate_limit = RateLimit(tokens_per_minute=60, clock=Clock())
    rate_limit.spend(50)

    for _ in range(10):
        with pytest.raises(Overloaded):
            rate_limit.spend(20)
    rate_limit.spend(10)


def test_a_request_larger_than_a_minutes_worth_is_admitted_when_the_bucket_is_full_and_leaves_a_debt() -> None:
    clock = Clock()
    rate_limit = RateLimit(tokens_per_minute=60, clock=clock)
    rate_limit.spend(180)

    with pytest.raises(Overloaded) as refused:
        rate_limit.spend(1)
    clock.now += 121
    rate_limit.spend(1)

    assert 60 == refused.value.retry_after_s  # 121 s would be exact, but clients don't wait so long


def test_refunded_tokens_can_be_spent_again() -> None:
    rate_limit = RateLimit(tokens_per_minute=60, clock=Clock())
    rate_limit.spend(60)

    rate_limit.refund(20)

    rate_limit.spend(20)
    with pytest.raises(Overloaded):
        rate_limit.spend(1)


def test_the_bucket_never_holds_more_than_a_minutes_worth() -> None:
    clock = Clock()
    rate_limit = RateLimit(tokens_per_minute=60, clock=clock)
    clock.now += 3600

    rate_limit.spend(60)
    with pytest.raises(Overloaded):
        rate_limit.spend(1)


async def test_a_full_queue_costs_a_caller_no_tokens() -> None:
    rate_limit = RateLimit(tokens_per_minute=60, clock=Clock())

    async def fill_and_submit(context: RequestContext) -> None:
        context.model.lane.admission.requests = 1
        await context.submit([Row([1, 2, 3], None, 3, 0)])

    async with running(Settings(engine="fake", queue_requests=1)) as app:
        with pytest.raises(Overloaded, match="queue"):
            await app.state.service._access.run(
                Caller(rate_limit=rate_limit), None, ("embed",), fill_and_submit, answers="vectors"
            )

    rate_limit.spend(60)
