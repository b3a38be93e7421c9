"""The MLX engine's memory, and its lane: what doesn't fit is made smaller, and nothing is left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import POSITIONS
from conftest import ignore, until
from mlx_models import DEVICE, TEXTS, Opened, open_mlx, order_of

from nearfar.core.errors import ModelNotReady
from nearfar.engines.base import Engine, RowsTooLarge
from nearfar.engines.mlx import kind
from nearfar.engines.mlx.memory import split
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.queue.admission import QueueLimits
from nearfar.serving.queue.lane import Lane, LaneSettings, open_lane
from nearfar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from nearfar.engines.common.padding import PaddedBatch


METAL_SAYS = (
    "[metal::malloc] Attempting to allocate 41271951360 bytes which is greater than the maximum allowed buffer size"
)


class Full:
    """Stands before a network and has no memory for more than so many rows, or for rows over a length."""

    def __init__(self, network: Any, rows: int, length: int = POSITIONS, says: str = METAL_SAYS) -> None:
        self.network, self.rows, self.length, self.says = network, rows, length, says
        self.shares_prefixes: bool = network.shares_prefixes
        self.seen: list[tuple[int, int]] = []

    def __call__(self, padded: PaddedBatch, prefix: Sequence[int] = ()) -> Any:
        rows, length = padded.ids.shape
        self.seen.append((rows, length))
        if rows > self.rows or length > self.length:
            raise RuntimeError(self.says)
        return self.network(padded, prefix)


def fill(engine: Any, **options: Any) -> Full:
    engine._network = full = Full(engine._network, **options)
    return full


class TestMemory:
    def test_a_batch_that_does_not_fit_is_halved_until_it_does(self, bert: Path) -> None:
        here = open_mlx(bert)
        rows = here.rows(TEXTS[:11])
        expected = here.engine.embed(rows)
        full = fill(here.engine, rows=2)

        np.testing.assert_allclose(here.engine.embed(rows), expected, rtol=0, atol=1e-5)
        assert {1, 2} == {count for count, _ in full.seen if count <= 2}
        assert sum(count for count, _ in full.seen if count <= 2) == len(rows)

    def test_a_row_that_does_not_fit_alone_is_named_and_the_others_answered(self, bert: Path) -> None:
        here = open_mlx(bert)
        rows = here.rows(["x", "the fox", "word " * 100, "a question?"])
        expected = here.engine.embed(rows)
        fill(here.engine, rows=4, length=20)

        with pytest.raises(RowsTooLarge) as caught:
            here.engine.embed(rows)

        assert [2] == caught.value.indices
        np.testing.assert_allclose(
            np.delete(np.asarray(caught.value.results), 2, 0), np.delete(expected, 2, 0), rtol=0, atol=1e-5
        )

    def test_another_fault_is_not_taken_for_a_lack_of_memory(self, bert: Path) -> None:
        here = open_mlx(bert)
        full = fill(here.engine, rows=0, says="shapes don't match")

        with pytest.raises(RuntimeError, match="shapes don't match"):
            here.engine.embed(here.rows(["a", "b"]))
        assert 1 == len(full.seen)

    def test_long_texts_run_in_smaller_parts(self) -> None:
        """32 texts of 8,194 tokens asked for a buffer of 41 GB elsewhere."""
        batch = [Row([1] * 8194, None, 8194, 0)] * 32

        parts = [len(rows) for _, rows in split(batch, 16)]

        assert [1] * 32 == parts
        assert [(0, 64), (64, 36)] == [(at, len(rows)) for at, rows in split([Row([1] * 1024, None, 0, 0)] * 100, 16)]

    def test_memory_is_reported_by_kind_and_released(self, bert: Path) -> None:
        here = open_mlx(bert)
        before = here.engine.memory()

        here.engine.close()

        assert {"active", "cache", "peak"} == before.keys()
        assert here.engine.memory()["active"] < before["active"]

    def test_2000_mixed_texts_leave_no_more_behind_than_500(self, bert: Path) -> None:
        ran = subprocess.run(
            [sys.executable, "-c", GROWING, str(bert), DEVICE], capture_output=True, text=True, check=True
        )

        after = [int(kilobytes) for kilobytes in ran.stdout.split()]
        assert 4 == len(after)
        assert max(after) < 1.05 * after[0]


GROWING = """
import os, random, subprocess, sys
from pathlib import Path
from nearfar.engines.base import OpenRequest
from nearfar.engines.mlx import kind
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.row import Row

folder, device, dice = Path(sys.argv[1]), sys.argv[2], random.Random(5)
engine = kind.open(OpenRequest(folder=folder, recipe=read_recipe(folder), device=device, dtype="float32"))
for done in range(1, 2001):
    rows = [Row([dice.randrange(4, 90) for _ in range(dice.randint(1, 48))], None, 0, 0) for _ in range(4)]
    engine.embed(rows[: dice.randint(1, 4)])
    if done % 500 == 0:
        print(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())], text=True).strip())
"""


class Slow:
    """Wraps a network and blocks every call until it is released."""

    def __init__(self, network: Any) -> None:
        self.network, self.running, self.go = network, threading.Event(), threading.Event()
        self.shares_prefixes: bool = network.shares_prefixes

    def __call__(self, padded: PaddedBatch, prefix: Sequence[int] = ()) -> Any:
        self.running.set()
        assert self.go.wait(30)
        return self.network(padded, prefix)


@pytest.mark.anyio
class TestInItsLane:
    @asynccontextmanager
    async def in_lane(self, folder: Path) -> AsyncIterator[tuple[Lane, Opened, Slow]]:
        request = order_of(folder)
        settings = LaneSettings(model="tiny", method="embed", queue=QueueLimits(tokens=10_000, requests=100))
        engines: list[Any] = []

        def open_engine() -> Engine:
            engine = kind.open(request)
            engines.append(engine)
            return engine

        lane = await open_lane(settings, open_engine, request.probes[0], ignore)
        [engine] = engines
        engine._network = slow = Slow(engine._network)
        try:
            yield lane, Opened(folder, TextEncoder(folder, request.recipe), engine), slow
        finally:
            slow.go.set()
            await lane.close()

    async def test_memory_is_among_the_metrics(self, bert: Path) -> None:
        async with self.in_lane(bert) as (lane, here, _):
            metrics = Metrics(lambda: [lane.depth(), lane.depth()])
            lines = metrics.render().decode().splitlines()

            gauges = dict(line.split(" ") for line in lines if line.startswith("nearfar_engine_memory_bytes{"))
            assert 3 == len(gauges)
            assert here.engine.memory()["active"] == float(gauges['nearfar_engine_memory_bytes{kind="active"}'])

    async def test_a_disconnect_during_a_forward_changes_nothing_for_the_others(self, bert: Path) -> None:
        async with self.in_lane(bert) as (lane, here, slow), asyncio.timeout(30):
            rows = here.rows(["the fox", "a question?", "x"])
            leaving = asyncio.create_task(lane.submit(rows[:1]))
            await until(slow.running.is_set)
            staying = asyncio.create_task(lane.submit(rows[1:]))
            leaving.cancel()
            await asyncio.sleep(0)
            slow.go.set()
            vectors = await staying

            with pytest.raises(asyncio.CancelledError):
                await leaving
            np.testing.assert_allclose(vectors, open_mlx(bert).engine.embed(rows[1:]), rtol=0, atol=1e-5)

    async def test_closing_during_a_forward_waits_for_it_and_answers_its_requests(self, bert: Path) -> None:
        async with self.in_lane(bert) as (lane, here, slow), asyncio.timeout(30):
            rows = here.rows(["the fox", "a question?"])
            running, waiting = (asyncio.create_task(lane.submit([row])) for row in rows)
            await until(slow.running.is_set)
            closing = asyncio.create_task(lane.close())
            await asyncio.sleep(0.05)
            still = not closing.done()
            slow.go.set()
            await closing
            ends = await asyncio.gather(running, waiting, return_exceptions=True)

        assert still
        assert all(isinstance(end, ModelNotReady) for end in ends)
        assert not lane.is_open
