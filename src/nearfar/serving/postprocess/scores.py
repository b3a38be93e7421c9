"""Scores from vectors and logits. Raw ones are cosines, sums or logits; mapped ones are in [0, 1]. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.core.types import FloatArray, Representation, SparseVector
from nearfar.models.recipe.recipe import Recipe

Scores = npt.NDArray[Any]  # (N,)


def sigmoid(logits: FloatArray) -> npt.NDArray[Any]:
    """Map logits to [0, 1]; by tanh, which can't overflow, and in float64, where -90 isn't 0 yet."""
    return (1.0 + np.tanh(logits.astype(np.float64) / 2.0)) / 2.0


def probabilities(recipe: Recipe, logits: FloatArray) -> npt.NDArray[Any]:
    """Map a classifier's logits (B,) or (B, L) to [0, 1]: by softmax, or by sigmoid if labels are independent."""
    if recipe.multi_label or logits.ndim == 1:
        return sigmoid(logits)
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    softmax: npt.NDArray[Any] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return softmax


def cosines(query: FloatArray, documents: FloatArray) -> FloatArray:
    """Compute the cosine of (D,) with each of (N, D), in [-1, 1]."""
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(query)
    clipped: FloatArray = np.clip(documents @ query / lengths, -1.0, 1.0)  # rounding may exceed 1 by 1e-7
    return clipped


def compare_groups(recipe: Recipe, groups: Sequence[npt.NDArray[Any]]) -> tuple[Scores, Scores]:
    """Compare the first of each group with each of the others; return all raw scores, and all mapped ones.

    A group is (1 + N, D) vectors, or (1 + N,) Representations if a text has no single vector.
    """
    pairs = [_compare(recipe, group) for group in groups]
    return np.concatenate([raw for raw, _ in pairs]), np.concatenate([mapped for _, mapped in pairs])


def _compare(recipe: Recipe, group: npt.NDArray[Any]) -> tuple[Scores, Scores]:
    if recipe.pooling:
        raw = cosines(group[0], group[1:])
        return raw, (1.0 + raw) / 2.0
    if recipe.multi_vector:
        return max_sims(group[0], list(group[1:]))
    return sparse_products(group[0], list(group[1:]))


def max_sims(query: Representation, documents: Sequence[Representation]) -> tuple[Scores, Scores]:
    """Compute ColBERT's MaxSim: for each of the query's vectors (n, M) the best product with the document's (m, M).

    The sum is between -n and n for unit vectors. A document without vectors, only punctuation, gets -n.
    """
    vectors = query.multi_vector
    if vectors is None or not len(vectors):
        return np.zeros(len(documents)), np.full(len(documents), 0.5)
    found = [document.multi_vector for document in documents]
    lowest = -float(len(vectors))
    sums = np.array([(vectors @ one.T).max(axis=1).sum() if one is not None and len(one) else lowest for one in found])
    return sums, np.clip((1.0 + sums / len(vectors)) / 2.0, 0.0, 1.0)


def sparse_products(query: Representation, documents: Sequence[Representation]) -> tuple[Scores, Scores]:
    """Compute dot products of sparse vectors, and cosines, which are never negative; 0 for an empty vector."""
    dots = np.array([_dot(query.sparse, document.sparse) for document in documents])
    lengths = np.array([_length(document.sparse) for document in documents]) * _length(query.sparse)
    return dots, np.clip(np.divide(dots, lengths, out=np.zeros(len(dots)), where=lengths > 0), 0.0, 1.0)


def _dot(one: SparseVector | None, other: SparseVector | None) -> float:
    if one is None or other is None:
        return 0.0
    _, here, there = np.intersect1d(one.indices, other.indices, assume_unique=True, return_indices=True)
    return float(one.values[here].astype(np.float64) @ other.values[there].astype(np.float64))


def _length(vector: SparseVector | None) -> float:
    return 0.0 if vector is None else float(np.linalg.norm(vector.values.astype(np.float64)))
