"""Vectors and logits → scores. Pure: raw ones are cosines, sums or logits, and mapped ones are in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from nearfar.core.types import FloatArray, Representation, SparseVector
    from nearfar.models.recipe.recipe import Recipe

    Scores = npt.NDArray[Any]  # (N,)


def sigmoid(logits: FloatArray) -> npt.NDArray[Any]:
    """Map logits to [0, 1]; through tanh, which can't overflow, and in float64, where -90 isn't yet 0."""
    return (1.0 + np.tanh(logits.astype(np.float64) / 2.0)) / 2.0


def probabilities(recipe: Recipe, logits: FloatArray) -> npt.NDArray[Any]:
    """Map the logits (B,) or (B, L) of a classifier's labels to [0, 1], together or each for itself."""
    if recipe.multi_label or logits.ndim == 1:
        return sigmoid(logits)
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: npt.NDArray[Any] = raised / raised.sum(axis=1, keepdims=True)
    return shares


def cosines(query: FloatArray, documents: FloatArray) -> FloatArray:
    """Compare (D,) with each of (N, D), in [-1, 1]."""
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(query)
    found: FloatArray = np.clip(documents @ query / lengths, -1.0, 1.0)  # rounding may pass 1 by 1e-7
    return found


def compared(recipe: Recipe, each: Sequence[npt.NDArray[Any]]) -> tuple[Scores, Scores]:
    """Compare what became of texts: of every group the first with each of the others, raw and mapped, end to end.

    That is vectors (1 + N, D), or Representations (1 + N,) where a text has no one vector.
    """
    pairs = [_compare(recipe, group) for group in each]
    return np.concatenate([raw for raw, _ in pairs]), np.concatenate([mapped for _, mapped in pairs])


def _compare(recipe: Recipe, group: npt.NDArray[Any]) -> tuple[Scores, Scores]:
    if recipe.pooling:
        raw = cosines(group[0], group[1:])
        return raw, (1.0 + raw) / 2.0
    if recipe.multi_vector:
        return max_sims(group[0], list(group[1:]))
    return sparse_products(group[0], list(group[1:]))


def max_sims(query: Representation, documents: Sequence[Representation]) -> tuple[Scores, Scores]:
    """Sum over the query's vectors (n, M) the most that each has in common with one of the document's (m, M).

    That is between -n and n for unit vectors. A document without vectors, of nothing but punctuation, gets the least.
    """
    asked = query.multi_vector
    if asked is None or not len(asked):
        return np.zeros(len(documents)), np.full(len(documents), 0.5)
    found = [one.multi_vector for one in documents]
    least = -float(len(asked))
    sums = np.array([(asked @ one.T).max(axis=1).sum() if one is not None and len(one) else least for one in found])
    return sums, np.clip((1.0 + sums / len(asked)) / 2.0, 0.0, 1.0)


def sparse_products(query: Representation, documents: Sequence[Representation]) -> tuple[Scores, Scores]:
    """Give dot products, and cosines, which are never below 0; 0 for a text without weights."""
    dots = np.array([_dot(query.sparse, one.sparse) for one in documents])
    lengths = np.array([_length(one.sparse) for one in documents]) * _length(query.sparse)
    return dots, np.clip(np.divide(dots, lengths, out=np.zeros(len(dots)), where=lengths > 0), 0.0, 1.0)


def _dot(one: SparseVector | None, other: SparseVector | None) -> float:
    if one is None or other is None:
        return 0.0
    _, here, there = np.intersect1d(one.indices, other.indices, assume_unique=True, return_indices=True)
    return float(one.values[here].astype(np.float64) @ other.values[there].astype(np.float64))


def _length(weights: SparseVector | None) -> float:
    return 0.0 if weights is None else float(np.linalg.norm(weights.values.astype(np.float64)))
