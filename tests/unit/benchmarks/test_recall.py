"""What is said of recall is counted as it says, on passages that are the same every time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nearfar.serving.postprocess.quantization import quantize

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def recall() -> Iterator[Any]:
    """Give the script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        found = importlib.util.spec_from_file_location("recall", BENCHMARKS / "recall.py")
        assert found
        assert found.loader
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        yield module
        sys.modules.pop("passages", None)


def test_passages_are_many_different_and_the_same_every_time(recall: Any) -> None:
    texts, queries = recall.passages(4000, 100)

    again = recall.passages(4000, 100)

    assert (texts, queries) == again
    assert 4000 == len(set(texts))
    assert all(15 <= len(text.split()) <= 60 for text in texts)
    assert not {*queries} & {*texts}


def test_fewer_passages_than_asked_for_are_an_error(recall: Any) -> None:
    with pytest.raises(ValueError, match="passages, not"):
        recall.passages(10**6, 1)


def test_recall_is_the_share_of_the_right_ones_that_were_found(recall: Any) -> None:
    found, exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[4, 3, 2, 1], [5, 0, 0, 9]])

    assert (1 + 1 / 4) / 2 == recall.recall(found, exact)


def test_distances_are_of_bits(recall: Any) -> None:
    one, two = np.array([[0b1111, 0]], dtype=np.uint8), np.array([[0b0101, 0b1], [0b1111, 0]], dtype=np.uint8)

    assert [[3, 0]] == recall.distances(one, two).tolist()


def test_the_chosen_are_sorted_again_and_no_others(recall: Any) -> None:
    closeness = np.array([[9.0, 1.0, 5.0, 3.0]])

    assert [[2, 3, 1]] == recall.again(np.array([[1, 2, 3]]), closeness).tolist()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_bytes_stand_for_the_middle_of_their_step(recall: Any, kind: Any) -> None:
    values = np.random.default_rng(3).uniform(-0.2, 0.2, (1, 5000)).astype(np.float32)

    apart = recall.as_floats(quantize(values, kind, 0.2), 0.2) - values

    step = 2 * 0.2 / 255
    wide = step if kind == "int8" else step / 2  # int8's step 0 is twice as wide
    assert np.abs(apart).max() <= wide + 1e-7
    assert abs(apart.mean()) < step / 20
