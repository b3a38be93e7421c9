"""Pooling and normalization of hidden states, as engines do them, for any part of a text. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nearfar.core.errors import EngineError
from nearfar.core.types import FloatArray
from nearfar.models.recipe.dense import Pooling


def pool(states: FloatArray, modes: Sequence[Pooling]) -> FloatArray:
    """Pool the hidden states (T, H) of a text, or of a part of it, to (H · modes,) float32."""
    pooled = np.concatenate([_POOL[mode](states) for mode in modes])
    return pooled.astype(np.float32)


def normalize(vectors: FloatArray, what: str = "a vector's components") -> FloatArray:
    """Scale each vector of (B, D) to unit length. Raises EngineError for a zero vector, which has no direction."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise EngineError(f"{what} are all zero")
    normalized: FloatArray = vectors / lengths
    return normalized


def _weighted_mean(states: FloatArray) -> FloatArray:
    weights = np.arange(1, len(states) + 1, dtype=np.float32)  # token i has weight i, counted from 1 (SGPT)
    pooled: FloatArray = weights @ states / weights.sum()
    return pooled


_POOL: dict[Pooling, Callable[[FloatArray], FloatArray]] = {
    "cls": lambda states: states[0],
    "max": lambda states: states.max(axis=0),
    "mean": lambda states: states.mean(axis=0),
    "mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / np.sqrt(np.float32(len(states))),
    "weightedmean": _weighted_mean,
    "lasttoken": lambda states: states[-1],
}
