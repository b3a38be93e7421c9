"""Warm-up: the lengths that run, and that no failure of it fails the start."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from nearfar_fakes import BOOM, FakeEngine

import nearfar
from nearfar.models.tokenization.row import Row
from nearfar.serving.registry.warmup import rows_of_lengths, warm_up

EXAMPLE = Row([101, 7, 8, 102], [0, 0, 1, 1], 2, 0)


def warm_engine(parallel: int = 1, warm_up_s: float = 1.0) -> FakeEngine:
    engine = FakeEngine()
    engine.info = msgspec.structs.replace(engine.info, warm_up_s=warm_up_s, max_concurrent_batches=parallel)
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
    engine = warm_engine(parallel)

    warm_up(engine, "embed", rows_of_lengths(EXAMPLE, 64))

    assert sorted([16, 32, 64] * parallel) == sorted(len(batch[0].ids) for batch in engine.batches)
    assert parallel == 1 or all(name.startswith("warm-up") for name in engine.threads)


def test_an_engine_may_have_no_warm_up() -> None:
    engine = FakeEngine()

    warm_up(engine, "embed", rows_of_lengths(EXAMPLE, 64))

    assert [] == engine.batches


def test_warm_up_ends_at_its_timeout() -> None:
    """One of 400 tokens a second runs 16, 32 and 64 of them in 0.28 s."""
    engine = warm_engine(warm_up_s=0.2)
    engine.tokens_per_s = 400

    tokens_per_s = warm_up(engine, "embed", rows_of_lengths(EXAMPLE, 512))

    assert 20 < tokens_per_s <= 400  # less where a busy machine wakes late
    assert 64 >= max(len(batch[0].ids) for batch in engine.batches)


@pytest.mark.parametrize("module", ["torch", "mlx", "openvino"])
def test_every_engine_of_ours_has_a_warm_up(module: str) -> None:
    """Bulk for a slow model is then refused at once, before its first batch has run."""
    source = (Path(nearfar.__file__).parent / "engines" / module / "engine.py").read_text(encoding="utf-8")

    assert re.search(r"\bwarm_up_s=[\d.]+", source)


def test_the_longest_row_shows_how_fast_the_model_is() -> None:
    engine = warm_engine()
    engine.tokens_per_s = 2000

    tokens_per_s = warm_up(engine, "embed", rows_of_lengths(EXAMPLE, 64))

    assert 50 < tokens_per_s <= 2000
    assert 0 == warm_up(FakeEngine(), "embed", rows_of_lengths(EXAMPLE, 64))


def test_a_failing_forward_ends_the_warm_up_and_not_the_start() -> None:
    engine = warm_engine()
    rows = [Row(ids, None, len(ids), 0) for ids in ([9], [1, 2], [BOOM], [3])]

    tokens_per_s = warm_up(engine, "embed", rows)

    assert tokens_per_s > 0
    assert [[9], [1, 2], [BOOM]] == [batch[0].ids for batch in engine.batches]
