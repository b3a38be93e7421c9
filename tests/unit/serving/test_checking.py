"""What an engine gives is an answer, or it isn't: shapes, numbers that aren't finite, zeros, parts that are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nearfar.core.errors import EngineError
from nearfar.core.types import Representation, Weights
from nearfar.engines.base import EngineInfo
from nearfar.serving.queue.validation import checked

if TYPE_CHECKING:
    from nearfar.core.types import FloatArray, Output

NAN = float("nan")


def info(*outputs: Output, dim: int = 2, labels: int = 1) -> EngineInfo:
    return EngineInfo(
        name="a", device="cpu", dtype="float32", dim=dim, labels=labels, outputs=outputs or ("dense",), batch_tokens=9
    )


def floats(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float32)


def weights(*values: float) -> Weights:
    return Weights(np.arange(len(values), dtype=np.int32), floats(*values), 9)


WHOLE: dict[str, Any] = {
    "dense": floats(1, 0),
    "multi_vector": np.eye(2, dtype=np.float32),
    "sparse": weights(0.5, 2),
}


@pytest.mark.parametrize(
    ("part", "is_answer"),
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
def test_a_part_that_is_missing_or_no_number_makes_a_text_unanswered(part: dict[str, Any], is_answer: bool) -> None:
    """A text may have no token and no weight that counts."""
    given = [Representation(**WHOLE), Representation(**(WHOLE | part))]

    _, broken = checked(given, [1, 1], "represent", info("dense", "multi_vector", "sparse"))

    assert ([] if is_answer else [1]) == broken


def test_only_the_outputs_of_the_model_must_be_there() -> None:
    _, broken = checked([Representation(sparse=weights(1))], [1], "represent", info("sparse", dim=0))

    assert [] == broken


@pytest.mark.parametrize(
    ("call", "given", "told"),
    [
        ("represent", [Representation(**WHOLE)], info("dense")),
        ("embed", np.ones((2, 3)), info()),
        ("score", np.ones(2), info(labels=3)),
        ("score", np.ones((2, 3)), info()),
        ("hidden_states", [np.ones((2, 3))], info()),
    ],
)
def test_another_shape_fails_the_batch(call: Any, given: Any, told: EngineInfo) -> None:
    with pytest.raises(EngineError, match="due"):
        checked(given, [2, 2], call, told)


def test_a_logit_may_be_0_and_a_vector_not() -> None:
    logits, vectors = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 2), dtype=np.float32)

    assert [] == checked(logits, [1, 1], "score", info(labels=3))[1]
    assert [0, 1] == checked(vectors, [1, 1], "embed", info())[1]


@pytest.mark.parametrize(
    ("states", "is_answer"),
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
def test_hidden_states_are_those_of_every_token(states: Any, is_answer: bool) -> None:
    """One token's may be all zeros, and a text's not."""
    _, broken = checked([np.ones((1, 2)), states], [1, 2], "hidden_states", info())

    assert ([] if is_answer else [1]) == broken
