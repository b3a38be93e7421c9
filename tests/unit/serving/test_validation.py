"""Validation: the shape, finiteness and completeness of an engine's results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nearfar.core.errors import EngineError
from nearfar.core.types import Representation, SparseVector
from nearfar.engines.base import EngineInfo
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.forward import validate

if TYPE_CHECKING:
    from nearfar.core.types import FloatArray, Output

NAN = float("nan")


def info(*outputs: Output, dim: int = 2, labels: int = 1) -> EngineInfo:
    return EngineInfo(
        name="a", device="cpu", dtype="float32", dim=dim, labels=labels, outputs=outputs or ("dense",), batch_tokens=9
    )


def floats(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float32)


def weights(*values: float) -> SparseVector:
    return SparseVector(np.arange(len(values), dtype=np.int32), floats(*values), 9)


def rows(*lengths: int) -> list[Row]:
    return [Row([1] * length, None, length, 0) for length in lengths]


WHOLE: dict[str, Any] = {
    "dense": floats(1, 0),
    "multi_vector": np.eye(2, dtype=np.float32),
    "sparse": weights(0.5, 2),
}


@pytest.mark.parametrize(
    ("part", "is_valid"),
    [
        ({}, True),
        ({"sparse": weights()}, True),
        ({"multi_vector": np.zeros((0, 2), dtype=np.float32)}, True),
        ({"dense": None}, False),
        ({"multi_vector": None}, False),
        ({"sparse": None}, False),
        ({"dense": floats(NAN, 1)}, False),
        ({"dense": floats(0, 0)}, False),
        ({"dense": floats(1, 0, 0)}, False),
        ({"multi_vector": np.array([[1, 0], [NAN, 1]], dtype=np.float32)}, False),
        ({"multi_vector": np.array([[1, 0], [0, 0]], dtype=np.float32)}, False),
        ({"sparse": weights(0.5, NAN)}, False),
        ({"sparse": weights(float("inf"))}, False),
    ],
)
def test_a_missing_or_non_finite_output_is_invalid(part: dict[str, Any], is_valid: bool) -> None:
    """A text may have no token vectors and no sparse weights."""
    results = [Representation(**WHOLE), Representation(**(WHOLE | part))]

    _, invalid = validate(results, rows(1, 1), "represent", info("dense", "multi_vector", "sparse"))

    assert ([] if is_valid else [1]) == invalid


def test_only_the_outputs_of_the_model_are_required() -> None:
    _, invalid = validate([Representation(sparse=weights(1))], rows(1), "represent", info("sparse", dim=0))

    assert [] == invalid


@pytest.mark.parametrize(
    ("method", "results", "engine_info"),
    [
        ("represent", [Representation(**WHOLE)], info("dense")),
        ("embed", np.ones((2, 3)), info()),
        ("score", np.ones(2), info(labels=3)),
        ("score", np.ones((2, 3)), info()),
        ("hidden_states", [np.ones((2, 3))], info()),
    ],
)
def test_a_wrong_shape_fails_the_batch(method: Any, results: Any, engine_info: EngineInfo) -> None:
    with pytest.raises(EngineError, match="the engine returned"):
        validate(results, rows(2, 2), method, engine_info)


def test_a_logit_may_be_zero_and_a_vector_may_not() -> None:
    logits, vectors = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 2), dtype=np.float32)

    assert [] == validate(logits, rows(1, 1), "score", info(labels=3))[1]
    assert [0, 1] == validate(vectors, rows(1, 1), "embed", info())[1]


@pytest.mark.parametrize(
    ("states", "is_valid"),
    [
        (np.array([[0, 0], [1, 2]]), True),
        (np.array([[0, 0], [0, 0]]), False),
        (np.array([[1, NAN], [1, 2]]), False),
        (np.ones((1, 2)), False),
        (np.ones((3, 2)), False),
        (np.ones(2), False),
        (np.ones((0, 0)), False),
    ],
)
def test_hidden_states_cover_every_token(states: Any, is_valid: bool) -> None:
    """One token's may be all zeros, those of a whole text may not."""
    _, invalid = validate([np.ones((1, 2)), states], rows(1, 2), "hidden_states", info())

    assert ([] if is_valid else [1]) == invalid
