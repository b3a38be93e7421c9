"""Logits and vectors → scores. Pure: numpy in, numpy out, in float64 where float32 would lose the last digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from nearfar.models.recipe import Recipe
    from nearfar.types import FloatArray, Representation, Weights

    Scores = npt.NDArray[Any]  # (N,)


def sigmoid(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Map logits to [0, 1]; through tanh, which can't overflow, and in float64, where -90 isn't yet 0."""
    return (1.0 + np.tanh(logits.astype(np.float64) / 2.0)) / 2.0


def softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Map logits (B, L) to probabilities that sum to 1 over the last axis."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def cosines(query: FloatArray, documents: FloatArray) -> Scores:
    """Give the cosine of (D,) with each of (N, D)."""
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(query)
    found: Scores = np.clip(documents @ query / lengths, -1.0, 1.0)  # rounding may pass 1 by 1e-7
    return found


def of_representations(
    recipe: Recipe, query: Representation, documents: Sequence[Representation]
) -> tuple[Scores, Scores]:
    """Score each document by tokens' vectors, or else by sparse ones: as is, and mapped to [0, 1]."""
    if recipe.multi_vector:
        return _max_sims(query, documents)
    return _sparse(query, documents)


def _max_sims(query: Representation, documents: Sequence[Representation]) -> tuple[Scores, Scores]:
    """Sum over the query's vectors (n, M) the most that each has in common with one of the document's (m, M).

    That is between -n and n for unit vectors. A document without vectors, of nothing but punctuation, gets the least.
    """
    asked = query.multi_vector
    if asked is None or not len(asked):
        zeros = np.zeros(len(documents))
        return zeros, zeros
    found = [one.multi_vector for one in documents]
    least = -float(len(asked))
    sums = np.array([(asked @ one.T).max(axis=1).sum() if one is not None and len(one) else least for one in found])
    return sums, np.clip((1.0 + sums / len(asked)) / 2.0, 0.0, 1.0)


def _sparse(query: Representation, documents: Sequence[Representation]) -> tuple[Scores, Scores]:
    """Give dot products, and cosines, which are never below 0; 0 for a text without weights."""
    dots = np.array([_dot(query.sparse, one.sparse) for one in documents])
    lengths = np.array([_length(one.sparse) for one in documents]) * _length(query.sparse)
    return dots, np.clip(np.divide(dots, lengths, out=np.zeros(len(dots)), where=lengths > 0), 0.0, 1.0)


def _dot(one: Weights | None, other: Weights | None) -> float:
    if one is None or other is None:
        return 0.0
    _, here, there = np.intersect1d(one.indices, other.indices, assume_unique=True, return_indices=True)
    return float(one.values[here].astype(np.float64) @ other.values[there].astype(np.float64))


def _length(weights: Weights | None) -> float:
    return 0.0 if weights is None else float(np.linalg.norm(weights.values.astype(np.float64)))
