"""Forward: rows that the engine fails on are found by halving, and all others get their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from nearfar_fakes import BOOM, FakeEngine, vector_of

from nearfar.core.errors import DeviceOutOfMemory, EngineError
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.forward import Forward

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nearfar.core.types import FloatArray

DIM = 8


def rows_of(count: int, *, bad: Sequence[int] = (), length: int = 2) -> list[Row]:
    return [Row([BOOM if at in bad else 1, *range(2, length), 100 + at], None, length, 0) for at in range(count)]


class Small(FakeEngine):
    """Runs out of memory over ``most`` tokens, with ``error``."""

    def __init__(self, most: int, error: Callable[[], Exception]) -> None:
        super().__init__(DIM)
        self._most = most
        self._error = error

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        if sum(len(row.ids) for row in batch) > self._most:
            raise self._error()
        return super().embed(batch)


class Broken(FakeEngine):
    """Fails on every call, and counts."""

    calls = 0

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        self.calls += 1
        raise RuntimeError(f"no device for {len(batch)} rows")


@pytest.mark.parametrize("bad", [[0], [63], [5, 6], [0, 20, 40, 63], [*range(64)][::2]], ids=len)
def test_only_the_rows_that_an_engine_raises_for_fail(bad: list[int]) -> None:
    rows = rows_of(64, bad=bad)

    forward = Forward(FakeEngine(DIM), "embed", rows)
    forward.run()

    assert bad == sorted(forward.failures)
    assert {EngineError} == {failure.kind for failure in forward.failures.values()}
    for at in set(range(64)) - set(bad):
        np.testing.assert_array_equal(vector_of(rows[at].ids, DIM), forward.results[at])


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (64, 13), (1024, 21)])
def test_one_bad_row_costs_the_calls_that_a_bisection_takes(count: int, calls: int) -> None:
    """The batch, and at each of the log₂ halvings two halves: one that fails and one that succeeds."""
    forward = Forward(FakeEngine(DIM), "embed", rows_of(count, bad=[count // 3]))

    forward.run()

    assert calls == forward.calls
    assert 1 == len(forward.failures)


def test_a_broken_engine_is_not_called_for_every_row() -> None:
    engine = Broken(DIM)
    forward = Forward(engine, "embed", rows_of(1024))

    forward.run()

    assert 22 == engine.calls == forward.calls
    assert 1024 == len(forward.failures)
    assert "no device for 1024 rows" == str(forward.raised)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError,
        lambda: RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 137438953472 bytes. Error code 12 (Cannot allocate memory)"
        ),
        lambda: RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        lambda: RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223: std::bad_alloc"),
    ],
    ids=["python", "torch", "cuda", "openvino"],
)
def test_a_batch_that_does_not_fit_is_halved_and_a_row_that_does_not_fit_alone_is_named(
    error: Callable[[], Exception],
) -> None:
    engine = Small(64, error)
    rows = [*rows_of(40, length=8), *rows_of(1, length=65), *rows_of(3, length=64)]

    forward = Forward(engine, "embed", rows)
    forward.run()

    assert [(40, DeviceOutOfMemory)] == [(at, failure.kind) for at, failure in forward.failures.items()]
    assert 43 == len(forward.results)
    assert max(sum(len(row.ids) for row in batch) for batch in engine.batches) == 64
