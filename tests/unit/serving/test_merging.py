"""Jobs of a batch that run as one."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import running
from msgspec.structs import replace

from nearfar import Settings
from nearfar.core.caller import LOWEST_PRIORITY, Caller
from nearfar.core.errors import EngineError, InputError, Overloaded
from nearfar.core.jobs import Embedded, EmbedJob, Timings, Usage
from nearfar.serving.merging import JobMerging

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio

CALLER = Caller(name="a", priority=LOWEST_PRIORITY, is_batch=True)
TIMINGS = Timings(load_s=0, taken_at=0, total_s=0, tokenize_s=0, queue_s=0, inference_s=0)


class Engine:
    """Embeds a text as its length. A text in ``errors`` fails its whole job."""

    def __init__(self) -> None:
        self.jobs: list[tuple[EmbedJob, Caller]] = []
        self.errors: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0

    async def embed(self, job: EmbedJob, caller: Caller) -> Embedded:
        self.jobs.append((job, caller))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        texts = [str(text) for text in job.inputs]
        for text in texts:
            if text in self.errors:
                raise self.errors[text]
        each = tuple((len(text), len(text) // 10) for text in texts)
        return Embedded(
            info=None,  # type: ignore[arg-type]  # nothing reads it
            inputs=len(texts),
            vectors=np.array([[len(text), 1] for text in texts], np.float32),
            usage=Usage(tokens=sum(tokens for tokens, _ in each), truncated_tokens=0, each=each),
            timings=TIMINGS,
            int8_range=None,
        )


@pytest.fixture
def engine() -> Engine:
    return Engine()


def job(*texts: str, **options: object) -> EmbedJob:
    return replace(EmbedJob(model="m", inputs=texts), **options)


async def embed_all(engine: Engine, jobs: Sequence[EmbedJob]) -> list[Embedded | BaseException]:
    merging = JobMerging(engine.embed)
    return await asyncio.gather(*(merging.embed(one, CALLER) for one in jobs), return_exceptions=True)


async def test_jobs_that_begin_together_run_as_one(engine: Engine) -> None:
    found = await embed_all(engine, [job("a"), job("bb", "a text of 20 letters"), job("ccc")])

    assert [one.inputs for one, _ in engine.jobs] == [("a", "bb", "a text of 20 letters", "ccc")]
    results = [one for one in found if isinstance(one, Embedded)]
    assert [one.vectors[:, 0].tolist() for one in results] == [[1], [2, 20], [3]]
    assert [(one.inputs, one.usage.tokens, one.usage.truncated_tokens) for one in results] == [
        (1, 1, 0),
        (2, 22, 2),
        (1, 3, 0),
    ]
    assert results[1].usage.each == ((2, 0), (20, 2))


async def test_jobs_with_other_options_or_callers_run_apart(engine: Engine) -> None:
    merging = JobMerging(engine.embed)
    other = replace(CALLER, name="b")
    late = job("d", "e", late_chunking=True)
    await asyncio.gather(
        merging.embed(job("a"), CALLER),
        merging.embed(job("b", dimensions=2), CALLER),
        merging.embed(job("c"), other),
        merging.embed(late, CALLER),
        merging.embed(late, CALLER),
    )

    assert sorted(one.inputs for one, _ in engine.jobs) == [("a",), ("b",), ("c",), ("d", "e"), ("d", "e")]


@pytest.mark.parametrize("error", [InputError("bad", "input"), EngineError("bad")])
async def test_a_job_that_fails_leaves_the_others_their_results(engine: Engine, error: Exception) -> None:
    engine.errors["bad"] = error
    found = await embed_all(engine, [job("a"), job("bad"), job("ccc")])

    assert found[1] is error
    assert [one.vectors[0, 0] for one in found if isinstance(one, Embedded)] == [1, 3]
    assert len(engine.jobs) == 4


async def test_an_overload_is_every_jobs_error_at_once(engine: Engine) -> None:
    engine.errors["a"] = Overloaded("full", retry_after_s=1)
    found = await embed_all(engine, [job("a"), job("b")])

    assert found == [engine.errors["a"]] * 2
    assert len(engine.jobs) == 1


async def test_the_work_is_cancelled_once_all_its_jobs_are(engine: Engine) -> None:
    engine.gate.clear()
    merging = JobMerging(engine.embed)
    tasks = [asyncio.create_task(merging.embed(job(text), CALLER)) for text in "abc"]
    while not engine.jobs:  # noqa: ASYNC110 — it begins by itself
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0.01)
    assert engine.cancelled == 0

    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert engine.cancelled == 1


async def test_a_cancelled_job_leaves_the_others_their_results(engine: Engine) -> None:
    engine.gate.clear()
    merging = JobMerging(engine.embed)
    tasks = [asyncio.create_task(merging.embed(job(text), CALLER)) for text in ("a", "bb")]
    while not engine.jobs:  # noqa: ASYNC110 — it begins by itself
        await asyncio.sleep(0)
    tasks[0].cancel()
    engine.gate.set()

    assert (await tasks[1]).vectors[0, 0] == 2


async def test_the_service_returns_what_it_returns_for_each_job_alone() -> None:
    async with running(Settings(engine="fake")) as app:
        service = app.state.service
        jobs = [EmbedJob(model=None, inputs=(f"text {at}", "x" * at)) for at in range(1, 9)]
        alone = [await service.embed(one, Caller()) for one in jobs]
        model = app.state.fleet.models()[0].lane._engine
        model.batches.clear()
        merged = await asyncio.gather(*(service.embed(one, CALLER) for one in jobs))

    assert len(model.batches) == 1
    for one, other in zip(alone, merged, strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)
        assert one.usage == other.usage


async def test_a_small_job_of_a_batch_leaves_the_batches_of_bulk_as_large_as_they_are() -> None:
    async with running(Settings(engine="fake")) as app:
        throughput = app.state.fleet.models()[0].lane.throughput
        await app.state.service.embed(EmbedJob(model=None, inputs=("a",)), CALLER)
        assert throughput._small_request_at == -math.inf

        await app.state.service.embed(EmbedJob(model=None, inputs=("b",)), Caller())
        assert throughput._small_request_at > 0
