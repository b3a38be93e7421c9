"""Recall and quantization error are computed correctly, on passages that are the same in every run."""

from __future__ import annotations

import email
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recall
from harness.workloads import passages

from nearfar.serving.postprocess.quantization import quantize

LIBRARY = Path(email.__file__).parent  # a part of the standard library, to be fast


def test_passages_are_distinct_and_the_same_in_every_run() -> None:
    texts, queries = passages(1000, 100, library=LIBRARY)

    assert (texts, queries) == passages(1000, 100, library=LIBRARY)
    assert 1000 == len(set(texts))
    assert all(15 <= len(text.split()) <= 60 for text in texts)
    assert not {*queries} & {*texts}


def test_more_passages_than_there_are_raise() -> None:
    with pytest.raises(ValueError, match="passages, not"):
        passages(10**6, 1, library=LIBRARY)


def test_recall_is_the_ratio_of_the_exact_results_that_were_found() -> None:
    found, exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[4, 3, 2, 1], [5, 0, 0, 9]])

    assert (1 + 1 / 4) / 2 == recall.recall(found, exact)


def test_hamming_distances_count_bits() -> None:
    one, two = np.array([[0b1111, 0]], dtype=np.uint8), np.array([[0b0101, 0b1], [0b1111, 0]], dtype=np.uint8)

    assert [[3, 0]] == recall.hamming_distances(one, two).tolist()


def test_reranking_sorts_the_candidates_only() -> None:
    similarity = np.array([[9.0, 1.0, 5.0, 3.0]])

    assert [[2, 3, 1]] == recall.rerank(np.array([[1, 2, 3]]), similarity).tolist()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_dequantized_values_are_midpoints_of_quantization_steps(kind: Any) -> None:
    values = np.random.default_rng(3).uniform(-0.2, 0.2, (1, 5000)).astype(np.float32)

    error = recall.dequantized(quantize(values, kind, 0.2), 0.2) - values

    step = 2 * 0.2 / 255
    max_error = step if kind == "int8" else step / 2  # int8's step 0 is twice as wide
    assert np.abs(error).max() <= max_error + 1e-7
    assert abs(error.mean()) < step / 20
