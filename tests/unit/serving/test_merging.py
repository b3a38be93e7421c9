"""Jobs of a batch that run as one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import running
from msgspec.structs import replace

from nearfar import Settings
from nearfar.core.caller import LOWEST_PRIORITY, Caller
from nearfar.core.errors import DeviceOutOfMemory, EngineError, InputError, ModelNotFound, Overloaded
from nearfar.core.jobs import Embedded, EmbedJob, Timings, Usage
from nearfar.serving.merging import Outcome, embed_merged

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio

CALLER = Caller(name="a", priority=LOWEST_PRIORITY, is_batch=True)
TIMINGS = Timings(load_s=0, taken_at=0, total_s=0, tokenize_s=0, queue_s=0, inference_s=0)


class Engine:
    """Embeds a text as its length. A text in ``errors`` fails its whole job."""

    def __init__(self) -> None:
        self.jobs: list[EmbedJob] = []
        self.errors: dict[str, Exception] = {}

    async def embed(self, job: EmbedJob) -> Embedded:
        self.jobs.append(job)
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


async def test_jobs_with_the_same_options_run_as_one(engine: Engine) -> None:
    found = await embed_merged(engine.embed, [job("a"), job("bb", "a text of 20 letters"), job("ccc")])

    assert [one.inputs for one in engine.jobs] == [("a", "bb", "a text of 20 letters", "ccc")]
    results = successes(found)
    assert [one.vectors[:, 0].tolist() for one in results] == [[1], [2, 20], [3]]
    assert [(one.inputs, one.usage.tokens, one.usage.truncated_tokens) for one in results] == [
        (1, 1, 0),
        (2, 22, 2),
        (1, 3, 0),
    ]
    assert results[1].usage.each == ((2, 0), (20, 2))


async def test_jobs_with_other_options_run_apart(engine: Engine) -> None:
    late = job("dd", "e", late_chunking=True)
    found = await embed_merged(engine.embed, [job("a"), job("bb", dimensions=2), late, job("ccc"), late])

    assert sorted(one.inputs for one in engine.jobs) == [("a", "ccc"), ("bb",), ("dd", "e"), ("dd", "e")]
    assert [one.vectors[0, 0] for one in successes(found)] == [1, 2, 2, 3, 2]


async def test_a_job_has_at_most_2048_texts_unless_a_line_has_more(engine: Engine) -> None:
    await embed_merged(engine.embed, [job(*["a"] * count) for count in (1000, 1000, 48, 1, 3000, 5)])

    assert [len(one.inputs) for one in engine.jobs] == [2048, 1, 3000, 5]


@pytest.mark.parametrize("error", [InputError("bad", "input"), EngineError("bad"), DeviceOutOfMemory("bad")])
async def test_a_job_that_fails_leaves_the_others_their_results(engine: Engine, error: Exception) -> None:
    engine.errors["bad"] = error
    texts = ["a", "bad", *("x" * at for at in range(3, 33))]
    found = await embed_merged(engine.embed, [job(text) for text in texts])

    assert found[1] is error
    assert [one.vectors[0, 0] for one in successes(found)] == [1, *range(3, 33)]
    assert len(engine.jobs) == 11  # in halves


@pytest.mark.parametrize("error", [Overloaded("full", retry_after_s=1), ModelNotFound("m")])
async def test_what_is_no_text_s_fault_is_every_job_s_error_at_once(engine: Engine, error: Exception) -> None:
    engine.errors["a"] = error
    found = await embed_merged(engine.embed, [job("a"), job("b")])

    assert found == [error] * 2
    assert len(engine.jobs) == 1


def successes(found: Sequence[Outcome]) -> list[Embedded]:
    return [one for one in found if isinstance(one, Embedded)]


async def test_the_service_returns_what_it_returns_for_each_job_alone() -> None:
    async with running(Settings(engine="fake")) as app:
        service = app.state.service
        jobs = [EmbedJob(model=None, inputs=(f"text {at}", "x" * at)) for at in range(1, 9)]
        alone = [await service.embed(one, Caller()) for one in jobs]
        model = app.state.fleet.models()[0].lane._engine
        model.batches.clear()
        merged = successes(await service.embed_merged(jobs, CALLER))

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
