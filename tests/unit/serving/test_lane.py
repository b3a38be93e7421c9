"""Lane: batches, failures, cancellation and closing, with a fake engine."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from conftest import ignore, until
from nearfar_fakes import BOOM, FEW, GIANT, NAN, QUIT, SECRET, ZERO, FakeEngine, vector_of

from nearfar.core.caller import Caller
from nearfar.core.errors import DeviceOutOfMemory, EngineError, InternalError, ModelNotReady, Overloaded, ServingError
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.admission import QueueLimits
from nearfar.serving.queue.lane import Lane, LaneSettings, open_lane
from nearfar.telemetry.events import ForwardDone
from nearfar.telemetry.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import Any

    from nearfar.core.types import EngineMethod, FloatArray
    from nearfar.telemetry.events import Event

pytestmark = pytest.mark.anyio

DIM = 8


class OpenLane:
    """A lane with its fake engine, after the probe."""

    def __init__(self, lane: Lane, engine: FakeEngine, events: list[Event]) -> None:
        self.lane = lane
        self.engine = engine
        self.events = events


def lane_settings(
    method: EngineMethod = "embed", batch_tokens: int | None = 64, queue_tokens: int = 10_000
) -> LaneSettings:
    limits = QueueLimits(tokens=queue_tokens, requests=100)
    return LaneSettings(model="fake", method=method, queue=limits, batch_tokens=batch_tokens)


@asynccontextmanager
async def running_lane(
    *,
    batch_tokens: int | None = 64,
    queue_tokens: int = 10_000,
    method: EngineMethod = "embed",
    engine: FakeEngine | None = None,
) -> AsyncIterator[OpenLane]:
    engine = engine or FakeEngine(DIM)
    events: list[Event] = []
    lane = await open_lane(lane_settings(method, batch_tokens, queue_tokens), lambda: engine, row(1), events.append)
    engine.batches.clear()
    try:
        yield OpenLane(lane, engine, events)
    finally:
        engine.gate.set()
        await lane.close()


def row(*ids: int) -> Row:
    return Row(list(ids), None, len(ids), 0)


async def test_each_row_gets_its_own_answer_in_its_own_place() -> None:
    rows = [row(*range(1, 2 + index % 7), 100 + index) for index in range(50)]

    async with running_lane() as lane:
        vectors = await lane.lane.submit(rows)

    np.testing.assert_array_equal(np.stack([vector_of(one.ids, DIM) for one in rows]), vectors)


async def test_a_cross_encoder_gives_one_logit_a_row() -> None:
    async with running_lane(method="score") as lane:
        logits = await lane.lane.submit([row(1), row(1, 2, 3)])

    assert [1.0, 3.0] == logits.tolist()


async def test_what_the_warm_up_measured_is_known_before_the_first_batch() -> None:
    """Else a crowd would be accepted until a slow model's first batch had run."""
    async with running_lane() as lane:
        lane.lane.throughput.tokens_per_s = 10.0
        lane.engine.gate.clear()
        first = asyncio.create_task(lane.lane.submit([row(*range(100))], stopwatch=Stopwatch(timeout_s=10)))
        await until(lambda: len(lane.engine.batches) == 1)

        with pytest.raises(Overloaded, match="it has 100 tokens, 100 run before it, and 10 run a second"):
            await lane.lane.submit([row(*range(1, 101))], stopwatch=Stopwatch(timeout_s=10))

        lane.engine.gate.set()
        await first


async def test_a_batch_runs_more_tokens_at_once_only_while_no_client_waits() -> None:
    engine = FakeEngine(DIM)
    engine.info = msgspec.structs.replace(engine.info, batch_tokens=64, offline_tokens=128)
    rows = [row(*range(at, at + 8)) for at in range(1, 33)]

    async with running_lane(engine=engine, batch_tokens=None) as lane:
        for caller in (Caller(is_batch=True), Caller(), Caller(is_batch=True)):
            await lane.lane.submit(rows, caller=caller)

    assert [16] * 2 + [8] * 8 == [*map(len, engine.batches)]


async def test_requests_that_wait_for_the_engine_run_in_one_batch() -> None:
    async with running_lane() as lane:
        lane.engine.gate.clear()
        first = asyncio.create_task(lane.lane.submit([row(1)]))
        await until(lambda: len(lane.engine.batches) == 1)
        others = [asyncio.create_task(lane.lane.submit([row(2, index)])) for index in range(20)]
        await asyncio.sleep(0)
        lane.engine.gate.set()
        await asyncio.gather(first, *others)

    assert [1, 20] == [len(batch) for batch in lane.engine.batches]
    assert [1, 20] == [event.requests for event in lane.events if isinstance(event, ForwardDone)]


async def test_no_batch_goes_over_the_budget() -> None:
    rows = [row(*range(1, 1 + length)) for length in (3, 30, 4, 29, 90, 5)]

    async with running_lane(batch_tokens=64) as lane:
        await lane.lane.submit(rows)

    sizes = [[len(one.ids) for one in batch] for batch in lane.engine.batches]
    assert sorted([[3, 4, 5], [29, 30], [90]]) == sorted(sorted(batch) for batch in sizes)


async def test_a_short_request_does_not_wait_for_a_bulk_request_to_end() -> None:
    long_rows = [row(*([7] * 30), index) for index in range(100)]  # too long to share a batch with it

    async with running_lane(batch_tokens=40) as lane:
        lane.engine.gate.clear()
        bulk = asyncio.create_task(lane.lane.submit(long_rows))
        await until(lambda: len(lane.engine.batches) == 1)
        single = asyncio.create_task(lane.lane.submit([row(1, 2)]))
        await asyncio.sleep(0)
        lane.engine.gate.set()
        await asyncio.gather(single, bulk)

    ran_before = next(at for at, batch in enumerate(lane.engine.batches) if batch[0].ids == [1, 2])
    assert ran_before <= 4
    assert len(lane.engine.batches) >= 50


class Parallel(FakeEngine):
    """Runs two batches at once."""

    def __init__(self) -> None:
        super().__init__(DIM)
        self.info = msgspec.structs.replace(self.info, max_concurrent_batches=2)


async def test_an_engine_that_runs_two_batches_at_once_gets_two() -> None:
    engine = Parallel()
    rows = [row(1, number) for number in range(20)]

    async with running_lane(engine=engine) as opened:
        engine.threads.clear()
        engine.gate.clear()
        running = asyncio.create_task(opened.lane.submit(rows))
        await until(lambda: len(engine.batches) == 2)
        engine.gate.set()
        vectors = await running

    assert [10, 10] == [len(batch) for batch in engine.batches]  # shared among both
    assert 2 <= len(engine.threads) <= 3  # two that ran, and the one that closed
    assert engine.closed
    np.testing.assert_array_equal(np.stack([vector_of(one.ids, DIM) for one in rows]), vectors)


async def test_identical_rows_of_several_requests_reach_the_engine_once() -> None:
    async with running_lane() as lane:
        lane.engine.gate.clear()
        first = asyncio.create_task(lane.lane.submit([row(9)]))
        await until(lambda: len(lane.engine.batches) == 1)
        others = [asyncio.create_task(lane.lane.submit([row(1, 2)])) for _ in range(5)]
        await asyncio.sleep(0)
        lane.engine.gate.set()
        answers = await asyncio.gather(first, *others)

    assert [1, 1] == [len(batch) for batch in lane.engine.batches]
    for answer in answers[1:]:
        np.testing.assert_array_equal(vector_of([1, 2], DIM), answer[0])


async def test_the_engine_is_opened_called_and_closed_on_one_thread() -> None:
    async with running_lane() as lane:
        await asyncio.gather(*(lane.lane.submit([row(index)]) for index in range(1, 9)))

    assert lane.engine.closed
    assert len(lane.engine.threads) == 1
    assert next(iter(lane.engine.threads)).startswith("lane-fake")


@pytest.mark.parametrize("fault", [BOOM, NAN, ZERO, FEW, QUIT])
async def test_a_failed_batch_fails_its_requests_and_the_lane_lives_on(fault: int) -> None:
    async with running_lane() as lane, asyncio.timeout(30):
        with pytest.raises(EngineError) as caught:
            await lane.lane.submit([row(1, fault)])
        after = await lane.lane.submit([row(5)])

    assert SECRET not in str(caught.value)
    np.testing.assert_array_equal(vector_of([5], DIM), after[0])


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (NAN, EngineError, "the model's result for text 1 isn't finite, or is all zeros"),
        (BOOM, EngineError, "the engine failed on text 1"),
        (FEW, EngineError, "the engine failed on text 1"),
        (QUIT, EngineError, "the engine failed on text 1"),
        (GIANT, DeviceOutOfMemory, "text 1 has 2 tokens, for which the model's device doesn't have the memory"),
    ],
)
async def test_a_row_without_a_result_fails_its_own_request_only(
    fault: int, error: type[ServingError], says: str
) -> None:
    async with running_lane() as lane, asyncio.timeout(30):
        lane.engine.gate.clear()
        first = asyncio.create_task(lane.lane.submit([row(1)]))
        await until(lambda: len(lane.engine.batches) == 1)
        calls = [asyncio.create_task(lane.lane.submit([row(2, 4), row(2, word)])) for word in (fault, 3)]
        await asyncio.sleep(0)
        lane.engine.gate.set()
        _, broken, whole = await asyncio.gather(first, *calls, return_exceptions=True)

    assert isinstance(broken, error)
    assert says in str(broken)
    assert SECRET not in str(broken)
    assert isinstance(whole, np.ndarray)


async def test_a_cancelled_request_never_reaches_the_engine() -> None:
    async with running_lane() as lane:
        lane.engine.gate.clear()
        first = asyncio.create_task(lane.lane.submit([row(1)]))
        await until(lambda: len(lane.engine.batches) == 1)
        leaving = asyncio.create_task(lane.lane.submit([row(2, index) for index in range(30)]))
        staying = asyncio.create_task(lane.lane.submit([row(3)]))
        await asyncio.sleep(0)
        leaving.cancel()
        lane.engine.gate.set()
        await asyncio.gather(first, staying)

    assert [[[1]], [[3]]] == [[one.ids for one in batch] for batch in lane.engine.batches]


async def test_a_full_queue_refuses_with_retry_after() -> None:
    async with running_lane(queue_tokens=10) as lane:
        lane.engine.gate.clear()
        running = asyncio.create_task(lane.lane.submit([row(1, 2, 3, 4, 5)]))
        await until(lambda: len(lane.engine.batches) == 1)
        fits = asyncio.create_task(lane.lane.submit([row(1, 2, 3, 4)]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await lane.lane.submit([row(1, 2)])
        depth = lane.lane.depth()
        lane.engine.gate.set()
        await asyncio.gather(running, fits)

    assert caught.value.retry_after_s is not None
    assert 1 <= caught.value.retry_after_s <= 60
    assert (1, 9) == (depth.rows, depth.tokens)
    assert (0, 0) == (lane.lane.depth().rows, lane.lane.depth().tokens)


async def test_one_huge_request_does_not_block_the_others() -> None:
    async with running_lane(queue_tokens=10) as lane:
        lane.engine.gate.clear()
        huge = asyncio.create_task(lane.lane.submit([row(1, 2, 3, 4, index) for index in range(20)]))
        await until(lambda: len(lane.engine.batches) == 1)
        small = asyncio.create_task(lane.lane.submit([row(1, 2)]))
        await asyncio.sleep(0)
        lane.engine.gate.set()
        await asyncio.gather(huge, small)

    assert (1, DIM) == small.result().shape
    assert (20, DIM) == huge.result().shape


async def test_submitting_no_rows_is_an_error_and_not_a_hang() -> None:
    async with running_lane() as lane:
        with pytest.raises(ValueError, match="no rows"):
            await lane.lane.submit([])


class Bad(FakeEngine):
    """Misbehaves in ways that no token id triggers."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__(DIM)
        self._answer = answer
        self.opened = False

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        if not self.opened:
            self.opened = True
            return super().embed(batch)
        answer: FloatArray = self._answer()
        return answer

    def close(self) -> None:
        raise RuntimeError("can't close")


@pytest.mark.parametrize(
    "answer",
    [
        lambda: next(iter(())),
        lambda: np.array([["a"] * DIM], dtype=object),
        lambda: None,
        lambda: np.ones((1, DIM + 1)),
    ],
    ids=["StopIteration", "objects", "nothing", "too wide"],
)
async def test_whatever_an_engine_returns_the_request_is_answered_and_the_lane_closes(
    answer: Callable[[], Any],
) -> None:
    lane = await open_lane(lane_settings(), lambda: Bad(answer), row(1), ignore)

    async with asyncio.timeout(30):
        for _ in range(2):
            with pytest.raises(EngineError):
                await lane.submit([row(1)])
        await lane.close()


async def test_an_engine_that_fails_to_open_raises_and_never_hangs() -> None:
    async with asyncio.timeout(30):
        with pytest.raises(InternalError):
            await open_lane(lane_settings(), lambda: next(iter(())), row(1), ignore)


async def test_a_request_larger_than_the_queue_runs_when_it_is_alone() -> None:
    async with running_lane(queue_tokens=3) as lane:
        vectors = await lane.lane.submit([row(1, 2, 3, 4), row(5, 6, 7, 8)])

    assert (2, DIM) == vectors.shape


async def test_closing_fails_every_request_that_waits() -> None:
    async with running_lane() as lane:
        lane.engine.gate.clear()
        calls = [asyncio.create_task(lane.lane.submit([row(index)])) for index in range(1, 4)]
        await until(lambda: len(lane.engine.batches) == 1)
        closing = asyncio.create_task(lane.lane.close())
        answers = await asyncio.gather(*calls, return_exceptions=True)
        lane.engine.gate.set()
        await closing
        with pytest.raises(ModelNotReady):
            await lane.lane.submit([row(1)])

    assert [ModelNotReady] * 3 == [type(answer) for answer in answers]


async def test_a_lane_with_a_hanging_forward_stops_and_fails_its_requests() -> None:
    engine, stopped = FakeEngine(DIM), asyncio.Event()
    events: list[Event] = []
    settings = msgspec.structs.replace(lane_settings(), forward_timeout_s=0.01)
    lane = await open_lane(settings, lambda: engine, row(1), events.append, stopped)
    engine.gate.clear()

    async with asyncio.timeout(30):
        running = asyncio.create_task(lane.submit([row(1)]))
        await until(lambda: len(engine.batches) == 2)  # the probe, then this one
        waiting = asyncio.create_task(lane.submit([row(2)]))
        answers = await asyncio.gather(running, waiting, return_exceptions=True)
        with pytest.raises(ModelNotReady, match="has stopped"):
            await lane.submit([row(3)])
    engine.gate.set()
    await lane.close()

    assert [EngineError, ModelNotReady] == [type(answer) for answer in answers]
    assert stopped.is_set()
    assert not lane.is_healthy()


async def test_a_forward_that_makes_progress_is_no_hang() -> None:
    class Slow(FakeEngine):
        """Fails on every batch of several rows after a while, so that it is called again and again."""

        def embed(self, batch: Sequence[Row]) -> FloatArray:
            time.sleep(0.05)
            if len(batch) > 1:
                raise RuntimeError("too many at once")
            return super().embed(batch)

    engine, timeout_s = Slow(DIM), 1.0
    settings = msgspec.structs.replace(lane_settings(), forward_timeout_s=timeout_s)
    lane = await open_lane(settings, lambda: engine, row(1), ignore)
    await lane.submit([row(1)])  # the first call of a method may take longer
    lane._runner.throughput.tokens_per_s = 1e6  # and so may a forward on a slow machine
    began = time.perf_counter()

    vectors = await lane.submit([row(2, index) for index in range(16)])  # 31 forwards
    took_s = time.perf_counter() - began
    await lane.close()

    assert took_s > timeout_s
    np.testing.assert_array_equal(vector_of([2, 3], DIM), vectors[3])


async def test_a_lane_with_a_failing_probe_never_opens_and_closes_its_engine() -> None:
    engine = FakeEngine(DIM)

    with pytest.raises(EngineError):
        await open_lane(lane_settings(), lambda: engine, row(NAN), ignore)

    assert engine.closed


async def test_the_times_of_a_job_add_up_to_no_more_than_its_total() -> None:
    began = time.perf_counter()
    async with running_lane() as there:
        stopwatch = Stopwatch()
        await there.lane.submit([row(1), row(2)], stopwatch=stopwatch)

        found = stopwatch.timings()

    assert 0 < found.total_s < time.perf_counter() - began
    assert min(found.tokenize_s, found.queue_s, found.inference_s) > 0
    assert found.tokenize_s + found.queue_s + found.inference_s <= found.total_s


async def test_a_job_s_run_time_covers_all_its_batches() -> None:
    async with running_lane(batch_tokens=4) as there:
        stopwatch = Stopwatch()
        await there.lane.submit([row(*range(1, 5)), row(*range(2, 6)), row(*range(3, 7))], stopwatch=stopwatch)

        found, batches = stopwatch.timings(), [event for event in there.events if isinstance(event, ForwardDone)]

    assert 3 == len(batches)
    assert sum(batch.duration_s for batch in batches) <= found.inference_s
    assert found.queue_s + found.inference_s <= found.total_s


async def test_a_stopwatch_of_a_job_without_rows_measures_tokenization_only() -> None:
    found = Stopwatch().timings()

    assert (0, 0) == (found.queue_s, found.inference_s)
    assert found.tokenize_s == found.total_s
