"""How much of float32 a lower precision keeps, told from the probes: what ``dtype = "auto"`` is decided by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    from nearfar.core.types import FloatArray

COSINE_FLOOR = 0.9999  # of a vector with the one computed in float32
SCORE_CEILING = 0.002  # how far the sigmoid of a pair's logit may move
_ROUNDING, _ROUNDING_OF_SCORES = 0.99999, 0.0001


class Loss(Struct, frozen=True):
    """What a precision costs against float32 on ``count`` probes: cosines of vectors, or differences of scores."""

    count: int
    worst: float
    mean: float
    of_scores: bool

    @property
    def is_small(self) -> bool:
        """Tell whether the automatic choice may take it; one row that isn't finite makes it large."""
        return self.worst <= SCORE_CEILING if self.of_scores else self.worst >= COSINE_FLOOR

    @property
    def is_rounding(self) -> bool:
        """Tell whether it is no more than two float32 programs differ by."""
        return self.worst <= _ROUNDING_OF_SCORES if self.of_scores else self.worst >= _ROUNDING

    def __str__(self) -> str:
        """Say it as the log does."""
        if self.of_scores:
            return f"scores within {self.worst:.5f} of float32 on {self.count} probes"
        return f"cosine to float32 min {self.worst:.5f}, mean {self.mean:.5f} on {self.count} probes"


def measure_loss(exact: FloatArray, found: FloatArray) -> Loss:
    """Compare (B, D) vectors, or (B,) logits by their sigmoids, with those computed in float32."""
    with np.errstate(invalid="ignore"):  # a damaged entry of a cache may hold anything; NaN is no small loss
        a, b = exact.astype(np.float64), found.astype(np.float64)
    if exact.ndim == 1:
        moved = np.abs(np.tanh(a / 2) - np.tanh(b / 2)) / 2  # sigmoid(x) = (1 + tanh(x / 2)) / 2
        return Loss(len(a), float(moved.max()), float(moved.mean()), of_scores=True)
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return Loss(len(a), float(cosines.min()), float(cosines.mean()), of_scores=False)
