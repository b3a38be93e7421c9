"""Scores from vectors and logits. Raw ones are similarities or logits; mapped ones are in [0, 1]. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.core.types import FloatArray, Representation, SparseVector
from nearfar.models.recipe.recipe import Recipe, Similarity

Scores = npt.NDArray[Any]  # (N,)


def sigmoid(logits: FloatArray) -> npt.NDArray[Any]:
    """Map logits to [0, 1]; by tanh, which can't overflow, and in float64, where -90 isn't 0 yet."""
    return (1.0 + np.tanh(logits.astype(np.float64) / 2.0)) / 2.0


def activate(recipe: Recipe, logits: FloatArray) -> npt.NDArray[Any]:
    """Map the logits (B,) of a single label to [0, 1]; (1 + tanh(x)) / 2 is the sigmoid of 2x."""
    return sigmoid(2 * logits if recipe.activation == "Tanh" else logits)


def probabilities(recipe: Recipe, logits: FloatArray) -> npt.NDArray[Any]:
    """Map a classifier's logits (B,) or (B, L) to [0, 1]: by softmax, or by sigmoid if labels are independent."""
    if logits.ndim == 1:
        return activate(recipe, logits)
    if recipe.multi_label:
        return sigmoid(logits)
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    softmax: npt.NDArray[Any] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return softmax


def cosines(query: FloatArray, documents: FloatArray) -> FloatArray:
    """Compute the cosine of (D,) with each of (N, D), in [-1, 1]."""
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(query)
    clipped: FloatArray = np.clip(products(query, documents) / lengths, -1.0, 1.0)  # rounding may exceed 1 by 1e-7
    return clipped


def products(query: FloatArray, documents: FloatArray) -> FloatArray:
    """Compute the product of (D,) with each of (N, D): the same for equal documents, in whichever rows.

    A matrix product rounds some rows in another way, which would change the order of equal documents.
    """
    found: FloatArray = np.einsum("nd,d->n", documents, query)
    return found


_SIMILARITIES: dict[Similarity, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "cosine": cosines,
    "dot": products,
    "euclidean": lambda query, documents: -np.linalg.norm(documents - query, axis=1),
    "manhattan": lambda query, documents: -np.abs(documents - query).sum(axis=1),
}


def similarities(recipe: Recipe, query: FloatArray, documents: FloatArray) -> FloatArray:
    """Compute the model's own similarity of (D,) with each of (N, D); distances are negative."""
    return _SIMILARITIES[recipe.similarity](query, documents)


def map_similarities(similarity: Similarity, raw: FloatArray) -> Scores:
    """Map similarities to [0, 1] in their order; in float64, where large products keep their differences."""
    if similarity == "cosine":
        return (1.0 + raw) / 2.0
    exact = raw.astype(np.float64)
    if similarity == "dot":
        return (1.0 + exact / (1.0 + np.abs(exact))) / 2.0
    return 1.0 / (1.0 - exact)


def compare_groups(recipe: Recipe, groups: Sequence[npt.NDArray[Any]]) -> tuple[Scores, Scores]:
    """Compare the first of each group with each of the others; return all raw scores, and all mapped ones.

    A group is (1 + N, D) vectors, or (1 + N,) Representations if a text has no single vector.
    """
    pairs = [_compare(recipe, group) for group in groups]
    return np.concatenate([raw for raw, _ in pairs]), np.concatenate([mapped for _, mapped in pairs])


def _compare(recipe: Recipe, group: npt.NDArray[Any]) -> tuple[Scores, Scores]:
    if recipe.pooling:
        raw = similarities(recipe, group[0], group[1:])
        return raw, map_similarities(recipe.similarity, raw)
    if recipe.multi_vector:
        return max_sims(group[0], list(group[1:]))
    return compare_sparse(recipe, group[0], list(group[1:]))


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


def compare_sparse(recipe: Recipe, query: Representation, documents: Sequence[Representation]) -> tuple[Scores, Scores]:
    """Compute the model's own similarity of sparse vectors, and map it to [0, 1]. Weights are never negative."""
    found = [_pair_up(query.sparse, document.sparse) for document in documents]
    raw = np.array([_sparse_similarity(recipe.similarity, *pair) for pair in found])
    if recipe.similarity == "cosine":
        return raw, np.clip(raw, 0.0, 1.0)
    return raw, raw / (1.0 + raw) if recipe.similarity == "dot" else 1.0 / (1.0 - raw)


def _sparse_similarity(similarity: Similarity, one: Scores, other: Scores) -> float:
    """Compute the similarity of two vectors that are given by their values at the same indices; 0 for an empty one."""
    if similarity == "cosine":
        lengths = np.linalg.norm(one) * np.linalg.norm(other)
        return float(one @ other / lengths) if lengths else 0.0
    return float(_SIMILARITIES[similarity](one, other[None])[0])


def _pair_up(one: SparseVector | None, other: SparseVector | None) -> tuple[Scores, Scores]:
    """Return both vectors' values (K,) at the indices that either has."""
    vectors = [vector for vector in (one, other) if vector is not None]
    indices = np.unique(np.concatenate([vector.indices for vector in vectors] or [np.zeros(0, dtype=np.int32)]))
    values = np.zeros((2, len(indices)))
    for at, vector in enumerate((one, other)):
        if vector is not None:
            values[at, np.searchsorted(indices, vector.indices)] = vector.values
    return values[0], values[1]
