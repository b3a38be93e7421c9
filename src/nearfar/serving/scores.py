"""Vectors and logits → scores. Pure; raw scores are cosines or logits, and the others are in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from nearfar.types import FloatArray


def cosines(query: FloatArray, documents: FloatArray) -> FloatArray:
    """Compare (D,) with each of (N, D), in [-1, 1]."""
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(query)
    found: FloatArray = np.clip(documents @ query / lengths, -1.0, 1.0)  # rounding may pass 1 by 1e-7
    return found


def from_cosines(raw: FloatArray) -> FloatArray:
    """Map cosines from [-1, 1] to [0, 1]."""
    scores: FloatArray = (1.0 + raw) / 2.0
    return scores


def sigmoid(logits: FloatArray) -> npt.NDArray[Any]:
    """Map logits (N,) to [0, 1]; through tanh, which can't overflow, and in float64, where -90 isn't yet 0."""
    return (1.0 + np.tanh(logits.astype(np.float64) / 2.0)) / 2.0
