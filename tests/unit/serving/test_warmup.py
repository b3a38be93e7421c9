"""Warm-up: the lengths that run, and that no failure of it fails the start."""

from __future__ import annotations

import msgspec
import pytest
from nearfar_fakes import BOOM, FakeEngine

from nearfar.models.tokenization.row import Row
from nearfar.serving.registry.warmup import rows_of_lengths, warm_up

EXAMPLE = Row([101, 7, 8, 102], [0, 0, 1, 1], 2, 0)


def compiling_engine(parallel: int = 1) -> FakeEngine:
    engine = FakeEngine()
    engine.info = msgspec.structs.replace(engine.info, compiles_per_shape=True, max_concurrent_batches=parallel)
    return engine


@pytest.mark.parametrize(
    ("max_tokens", "lengths"),
    [
        (8, [8]),
        (16, [16]),
        (100, [16, 32, 64, 100]),
        (256, [16, 32, 64, 128, 256]),
        (8192, [16, 32, 64, 128, 256, 512]),
    ],
)
def test_lengths_double_up_to_the_models_limit(max_tokens: int, lengths: list[int]) -> None:
    rows = rows_of_lengths(EXAMPLE, max_tokens)

    assert lengths == [len(row.ids) for row in rows]
    assert lengths == [len(row.type_ids or ()) for row in rows]
    assert {101, 7, 8, 102} == {*rows[-1].ids}


@pytest.mark.parametrize("parallel", [1, 3])
def test_every_concurrent_batch_runs_every_length(parallel: int) -> None:
    engine = compiling_engine(parallel)

    warm_up(engine, "embed", rows_of_lengths(EXAMPLE, 64))

    assert sorted([16, 32, 64] * parallel) == sorted(len(batch[0].ids) for batch in engine.batches)
    assert parallel == 1 or all(name.startswith("warm-up") for name in engine.threads)


def test_an_engine_that_compiles_nothing_is_not_warmed_up() -> None:
    engine = FakeEngine()

    warm_up(engine, "embed", rows_of_lengths(EXAMPLE, 64))

    assert [] == engine.batches


def test_warm_up_ends_at_its_timeout() -> None:
    engine = compiling_engine()

    warm_up(engine, "embed", rows_of_lengths(EXAMPLE, 64), timeout_s=0)

    assert [] == engine.batches


def test_the_longest_row_shows_how_fast_the_model_is() -> None:
    engine = compiling_engine()
    engine.tokens_per_s = 2000

    tokens_per_s = warm_up(engine, "embed", rows_of_lengths(EXAMPLE, 64))

    assert 500 < tokens_per_s <= 2000
    assert 0 == warm_up(FakeEngine(), "embed", rows_of_lengths(EXAMPLE, 64))


def test_a_failing_forward_ends_the_warm_up_and_not_the_start() -> None:
    engine = compiling_engine()

    tokens_per_s = warm_up(engine, "embed", [Row([1, 2], None, 2, 0), Row([BOOM], None, 1, 0), Row([3], None, 1, 0)])

    assert tokens_per_s > 0
    assert [[1, 2], [BOOM]] == [batch[0].ids for batch in engine.batches]
