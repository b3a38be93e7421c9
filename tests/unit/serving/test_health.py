"""Health: a lane is healthy when it has answered since the last request, or recently; a hang is no progress."""

from __future__ import annotations

import pytest

from nearfar.serving.queue.health import Liveness, Throughput, hang_timeout_s


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_lane_without_requests_stays_healthy() -> None:
    clock = Clock()
    liveness = Liveness(120, clock)

    clock.now += 1e6

    assert liveness.is_healthy(busy=False)


@pytest.mark.parametrize(("after_s", "healthy"), [(119, True), (121, False)])
def test_work_without_an_answer_is_healthy_until_the_timeout(after_s: float, *, healthy: bool) -> None:
    clock = Clock()
    liveness = Liveness(120, clock)
    clock.now += 1e6
    liveness.record_request(busy=False)
    clock.now += after_s / 2
    liveness.record_request(busy=True)  # another request that waits doesn't restart the timeout

    clock.now += after_s / 2

    assert healthy == liveness.is_healthy(busy=True)
    assert not liveness.has_failed


@pytest.mark.parametrize(("after_s", "healthy", "failed"), [(9, True, False), (11, False, False), (121, False, True)])
def test_failing_on_everything_is_healthy_for_a_moment_and_fatal_after_the_timeout(
    after_s: float, *, healthy: bool, failed: bool
) -> None:
    clock = Clock()
    liveness = Liveness(120, clock)
    liveness.record_batch(answered=True)
    for _ in range(3):
        liveness.record_request(busy=False)
        liveness.record_batch(answered=False)
        clock.now += after_s / 3

    assert healthy == liveness.is_healthy(busy=False)
    assert failed == liveness.has_failed


def test_one_answer_makes_a_failing_lane_healthy() -> None:
    clock = Clock()
    liveness = Liveness(120, clock)
    liveness.record_batch(answered=False)
    clock.now += 1000

    liveness.record_batch(answered=True)

    assert liveness.is_healthy(busy=False)
    assert not liveness.has_failed


@pytest.mark.parametrize(
    ("tokens_per_s", "small_request", "bulk_tokens"),
    [(0, True, 64), (1, False, 64), (1, True, 8), (1000, True, 20), (1e6, True, 64)],
    ids=["not yet measured", "no small requests", "slow", "20 ms", "fast"],
)
def test_bulk_batches_are_short_while_small_requests_arrive(
    tokens_per_s: int, *, small_request: bool, bulk_tokens: int
) -> None:
    throughput = Throughput(Clock())
    throughput.tokens_per_s = tokens_per_s
    if small_request:
        throughput.record_request(is_small=True)

    assert bulk_tokens == throughput.bulk_tokens(64)


def test_work_is_offline_once_no_client_has_sent_anything_for_20_s() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    found = [throughput.is_offline]
    throughput.record_request(is_small=False)
    for passed_s in (0, 19, 1):
        clock.now += passed_s
        found.append(throughput.is_offline)

    assert found == [True, False, False, True]
    assert throughput.bulk_tokens(64) == 64


@pytest.mark.parametrize(
    ("tokens", "tokens_per_s", "is_first", "expected"),
    [(512, 0.0, False, 1200), (512, 100.0, True, 1200), (512, 1000.0, False, 120), (8192, 100.0, False, 1638.4)],
    ids=["nothing measured", "first call of a method", "usual", "slow machine"],
)
def test_a_forward_may_take_far_longer_than_the_last_ones(
    tokens: int, tokens_per_s: float, *, is_first: bool, expected: float
) -> None:
    assert expected == hang_timeout_s(120, tokens, tokens_per_s, is_first=is_first)
