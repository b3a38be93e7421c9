"""Measures what a lower precision loses against float32 on sample rows: the basis for ``dtype = "auto"``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from nearfar.core.types import FloatArray
from nearfar.models.tokenization.row import Row

MIN_COSINE = 0.9999  # of a vector with its float32 version
MAX_SCORE_CHANGE = 0.002  # of the sigmoid of a pair's logit
# Differences between two float32 implementations stay within these.
_ROUNDING_COSINE, _ROUNDING_SCORE = 0.99999, 0.0001
_COMPARED_TOKENS = 32  # of a text; enough to measure a precision


class PrecisionLoss(Struct, frozen=True):
    """How ``count`` results differ from float32: cosines of vectors, or absolute differences of scores."""

    count: int
    worst: float
    mean: float
    of_scores: bool

    @property
    def is_small(self) -> bool:
        """Return whether the automatic choice may use the precision; False if any value is NaN."""
        return self.worst <= MAX_SCORE_CHANGE if self.of_scores else self.worst >= MIN_COSINE

    @property
    def is_rounding(self) -> bool:
        """Return whether two float32 implementations may differ as much."""
        return self.worst <= _ROUNDING_SCORE if self.of_scores else self.worst >= _ROUNDING_COSINE

    def __str__(self) -> str:
        """Format it for logs and ``dtype_reason``."""
        if self.of_scores:
            return f"scores within {self.worst:.5f} of float32 on {self.count} probes"
        return f"cosine to float32 min {self.worst:.5f}, mean {self.mean:.5f} on {self.count} probes"


def measure_loss(exact: FloatArray, found: FloatArray) -> PrecisionLoss:
    """Compare (B, D) vectors, or (B,) logits after a sigmoid, with their float32 versions."""
    with np.errstate(invalid="ignore"):  # a damaged cache entry may contain anything; NaN is not a small loss
        a, b = exact.astype(np.float64), found.astype(np.float64)
    if exact.ndim == 1:
        changes = np.abs(np.tanh(a / 2) - np.tanh(b / 2)) / 2  # sigmoid(x) = (1 + tanh(x / 2)) / 2
        return PrecisionLoss(len(a), float(changes.max()), float(changes.mean()), of_scores=True)
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return PrecisionLoss(len(a), float(cosines.min()), float(cosines.mean()), of_scores=False)


def flatten_outputs(outputs: Sequence[FloatArray], batch: Sequence[Row]) -> FloatArray:
    """Return (N, X): a vector for each text and output, without all-zero ones, which have no cosine."""
    rows = [
        (array[at][: min(len(row.ids), _COMPARED_TOKENS)] if array.ndim > 2 else array[at]).ravel()  # noqa: PLR2004
        for at, row in enumerate(batch)
        for array in outputs
    ]
    return stack([row[None] for row in rows if row.any()])


def stack(parts: Sequence[FloatArray]) -> FloatArray:
    """Concatenate (n, X) arrays, zero-padded to the widest, or (n,) arrays."""
    width = max((part.shape[1] for part in parts if part.ndim > 1), default=None)
    if width is None:
        return np.concatenate(parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
