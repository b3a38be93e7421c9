"""A caller's limits: so many requests at once, so many tokens a minute, and when to come back."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec
import pytest
from conftest import running

from nearfar import Settings
from nearfar.core.allowance import Allowance
from nearfar.core.caller import ANYBODY, Caller
from nearfar.core.errors import Overloaded
from nearfar.models.tokenization.row import Row

pytestmark = pytest.mark.anyio


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_limits_everything_is_let_in() -> None:
    allowance = Allowance()

    with ExitStack() as held:
        for _ in range(1000):
            held.enter_context(allowance.one_request())
            allowance.spend(1_000_000)


def test_one_request_too_many_is_refused_until_another_has_ended() -> None:
    allowance = Allowance(max_concurrent=2)

    with allowance.one_request():
        with allowance.one_request(), pytest.raises(Overloaded, match="2 requests at once"), allowance.one_request():
            pass
        with allowance.one_request():
            pass


def test_tokens_come_back_evenly_and_the_refusal_says_when() -> None:
    clock = Clock()
    allowance = Allowance(tokens_per_minute=600, clock=clock)
    allowance.spend(600)

    with pytest.raises(Overloaded) as refused:
        allowance.spend(100)
    clock.now += 9.9
    with pytest.raises(Overloaded):
        allowance.spend(100)
    clock.now += 0.2
    allowance.spend(100)

    assert 10 == refused.value.retry_after_s


def test_a_refusal_costs_nothing() -> None:
    clock = Clock()
    allowance = Allowance(tokens_per_minute=60, clock=clock)
    allowance.spend(50)

    for _ in range(10):
        with pytest.raises(Overloaded):
            allowance.spend(20)
    allowance.spend(10)


def test_a_request_larger_than_a_minutes_worth_is_let_in_when_all_is_there_and_paid_off_afterwards() -> None:
    clock = Clock()
    allowance = Allowance(tokens_per_minute=60, clock=clock)
    allowance.spend(180)

    with pytest.raises(Overloaded) as refused:
        allowance.spend(1)
    clock.now += 121
    allowance.spend(1)

    assert 60 == refused.value.retry_after_s  # 121 s would be right, and clients would give up at once


def test_tokens_that_went_through_no_model_are_given_back() -> None:
    allowance = Allowance(tokens_per_minute=60, clock=Clock())
    allowance.spend(60)

    allowance.give_back(20)

    allowance.spend(20)
    with pytest.raises(Overloaded):
        allowance.spend(1)


def test_more_than_a_minutes_worth_is_never_saved_up() -> None:
    clock = Clock()
    allowance = Allowance(tokens_per_minute=60, clock=clock)
    clock.now += 3600

    allowance.spend(60)
    with pytest.raises(Overloaded):
        allowance.spend(1)


async def test_a_full_queue_costs_a_caller_no_tokens() -> None:
    allowance = Allowance(tokens_per_minute=60, clock=Clock())
    async with running(Settings(engine="fake", queue_requests=1)) as app:
        model = msgspec.structs.replace(app.state.fleet.models()[0], caller=Caller(allowance=allowance))
        row = Row([1, 2, 3], None, 3, 0)
        with model.lane.admission.admit(1, ANYBODY), pytest.raises(Overloaded, match="queue"):
            await model.submit([row])

    allowance.spend(60)
