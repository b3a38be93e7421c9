"""A lane is well that has answered since it was last asked, or a little while ago."""

from __future__ import annotations

import asyncio
import threading

import pytest

from nearfar.serving.queue.liveness import Vitals
from nearfar.serving.queue.watchdog import ends, patience_s

pytestmark = pytest.mark.anyio


class Clock:
    """Seconds that a test lets pass."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_who_was_never_asked_is_well_for_ever() -> None:
    clock = Clock()
    vitals = Vitals(120, clock)

    clock.now += 1e6

    assert vitals.are_good(busy=False)


@pytest.mark.parametrize(("after_s", "good"), [(119, True), (121, False)])
def test_work_without_an_answer_is_well_until_the_limit(after_s: float, *, good: bool) -> None:
    clock = Clock()
    vitals = Vitals(120, clock)
    clock.now += 1e6
    vitals.asked(busy=False)
    clock.now += after_s / 2
    vitals.asked(busy=True)  # one more that waits makes it no younger

    clock.now += after_s / 2

    assert good == vitals.are_good(busy=True)
    assert not vitals.are_lost


@pytest.mark.parametrize(("after_s", "good", "lost"), [(9, True, False), (11, False, False), (121, False, True)])
def test_failing_on_everything_is_well_for_a_little_while_and_lost_after_the_limit(
    after_s: float, *, good: bool, lost: bool
) -> None:
    clock = Clock()
    vitals = Vitals(120, clock)
    vitals.ran(answered=True)
    for _ in range(3):
        vitals.asked(busy=False)
        vitals.ran(answered=False)
        clock.now += after_s / 3

    assert good == vitals.are_good(busy=False)
    assert lost == vitals.are_lost


def test_one_answer_makes_it_well_again() -> None:
    clock = Clock()
    vitals = Vitals(120, clock)
    vitals.ran(answered=False)
    clock.now += 1000

    vitals.ran(answered=True)

    assert vitals.are_good(busy=False)
    assert not vitals.are_lost


@pytest.mark.parametrize(
    ("tokens", "tokens_per_s", "first", "expected"),
    [(512, 0.0, False, 1200), (512, 100.0, True, 1200), (512, 1000.0, False, 120), (8192, 100.0, False, 1638.4)],
    ids=["nothing measured", "first of its kind", "usual", "slow machine"],
)
def test_a_forward_may_take_far_longer_than_its_like(
    tokens: int, tokens_per_s: float, *, first: bool, expected: float
) -> None:
    assert expected == patience_s(120, tokens, tokens_per_s, first=first)


async def test_progress_is_told_from_a_hang() -> None:
    gate, calls = threading.Event(), iter(range(8))
    hangs = asyncio.get_running_loop().run_in_executor(None, gate.wait)
    works = asyncio.get_running_loop().run_in_executor(None, gate.wait)

    hung = await ends(hangs, lambda: 1, 0.04)
    working = asyncio.create_task(ends(works, lambda: next(calls, 9), 0.04))
    await asyncio.sleep(0)
    late = await working
    gate.set()

    assert not hung
    assert not late
    assert next(calls, None) is None  # each call that was seen put the end off
    assert await ends(works, lambda: 1, 0.04)
