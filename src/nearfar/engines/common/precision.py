"""Measures what a lower precision loses against float32 on sample rows: the basis for ``dtype = "auto"``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from nearfar.core.types import FloatArray, Output
from nearfar.models.tokenization.row import Row

# What the automatic choice may lose: the cosine of a vector with its float32 version; the change of a logit, which
# changes a score by a quarter of it at most; and the share of pairs of results that keep their order.
MIN_COSINE, MAX_LOGIT_CHANGE, MIN_ORDER = 0.9999, 0.008, 0.997
# What any precision may lose for a reranker: the order of one pair of a query's documents in fifty; and what int8 may
# change: a logit by 0.2, which is 0.05 of a score. Choices.
MIN_QUERY_ORDER, MAX_INT8_LOGIT_CHANGE = 0.98, 0.2
# Differences between two float32 implementations stay within these; logits by their spread, if that is above 1.
_ROUNDING_COSINE, _ROUNDING_LOGIT = 0.99999, 0.0004
# Results that are closer than this in float32, relative to their spread, have no order.
_EQUAL = 1e-6
_COMPARED_TOKENS = 32  # of a text's token vectors; enough to measure a precision

Numbers = npt.NDArray[np.float64]


class PrecisionLoss(Struct, frozen=True):
    """How ``count`` results differ from float32: cosines of vectors, or absolute differences of logits."""

    count: int
    worst: float
    mean: float
    of_scores: bool
    # The share of pairs that keep their order: of logits, or of the neighbors of each vector.
    order: float = 1.0
    # The same of the logits of one query's documents.
    query_order: float = 1.0
    # The standard deviation of the logits.
    spread: float = 1.0

    @property
    def is_small(self) -> bool:
        """Return whether the automatic choice may use the precision; False if any value is NaN."""
        near = self.worst <= MAX_LOGIT_CHANGE if self.of_scores else self.worst >= MIN_COSINE
        return near and self.order >= MIN_ORDER and self.query_order >= MIN_QUERY_ORDER

    @property
    def allows_int8(self) -> bool:
        """Return whether a reranker may be served in int8."""
        return self.worst <= MAX_INT8_LOGIT_CHANGE and self.query_order >= MIN_QUERY_ORDER

    @property
    def is_rounding(self) -> bool:
        """Return whether two float32 implementations may differ as much."""
        return self.worst <= _ROUNDING_LOGIT * max(self.spread, 1) if self.of_scores else self.worst >= _ROUNDING_COSINE

    def __str__(self) -> str:
        """Format it for logs and ``dtype_reason``."""
        end = f"in the order of float32, on {self.count} probes"
        if self.of_scores:
            orders = f"{self.order:.2%} of pairs and {self.query_order:.2%} of those of one query"
            return f"logits within {self.worst:.4f} of float32, {orders} {end}"
        return f"cosine to float32 min {self.worst:.5f}, mean {self.mean:.5f}, {self.order:.2%} of neighbors {end}"


def measure_loss(
    exact: FloatArray, found: FloatArray, outputs: Sequence[Output] = ("dense",), probes: Sequence[Row] = ()
) -> PrecisionLoss:
    """Compare (B, D) vectors, or (B,) or (B, labels) logits if there are no ``outputs``, with their float32 versions.

    Neighbors are only compared for dense vectors; ``probes`` have the query of each logit.
    """
    with np.errstate(invalid="ignore"):  # a damaged cache entry may contain anything; NaN is not a small loss
        a, b = exact.astype(np.float64), found.astype(np.float64)
    if not outputs or exact.ndim == 1:
        changes = np.abs(a - b)
        labels = [*zip(a.reshape(len(a), -1).T, b.reshape(len(b), -1).T, strict=True)]
        queries = np.array([row.query for row in probes] or [0] * len(a))
        return PrecisionLoss(
            len(a),
            float(changes.max()),
            float(changes.mean()),
            of_scores=True,
            order=min(_same_order(one[None], other[None]) for one, other in labels),
            query_order=min(_order_within_queries(one, other, queries) for one, other in labels),
            spread=float(a.std()),
        )
    a, b = _unit(a), _unit(b)
    cosines = (a * b).sum(1) + (~a.any(1) & ~b.any(1))  # two vectors of zeros are equal
    has_neighbors = tuple(outputs) == ("dense",) and len(a) > 1
    order = _same_order(_similarities(a), _similarities(b)) if has_neighbors else 1.0
    return PrecisionLoss(len(a), float(cosines.min()), float(cosines.mean()), of_scores=False, order=order)


def flatten_outputs(outputs: Sequence[FloatArray], batch: Sequence[Row]) -> FloatArray:
    """Return (N, X): a vector for each text and output."""
    rows = [
        (array[at][: min(len(row.ids), _COMPARED_TOKENS)] if array.ndim > 2 else array[at]).ravel()  # noqa: PLR2004
        for at, row in enumerate(batch)
        for array in outputs
    ]
    return stack([row[None] for row in rows])


def stack(parts: Sequence[FloatArray]) -> FloatArray:
    """Concatenate (n, X) arrays, zero-padded to the widest, or (n,) arrays."""
    width = max((part.shape[1] for part in parts if part.ndim > 1), default=None)
    if width is None:
        return np.concatenate(parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])


def _unit(vectors: Numbers) -> Numbers:
    with np.errstate(invalid="ignore"):
        unit: Numbers = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    return unit


def _similarities(unit: Numbers) -> Numbers:
    """Return each vector's cosines with all others, (B, B - 1)."""
    cosines: Numbers = (unit @ unit.T)[~np.eye(len(unit), dtype=bool)].reshape(len(unit), -1)
    return cosines


def _order_within_queries(exact: Numbers, found: Numbers, queries: npt.NDArray[np.int64]) -> float:
    """Return the share of pairs of one query's documents that keep their order, of (B,) logits.

    Which of a few documents change places is chance. So each gap is also compared with the changes of all gaps, either
    way, and the smaller share is returned.
    """
    first, second = np.triu_indices(len(exact), k=1)
    ordered = (queries[first] == queries[second]) & (np.abs(exact[first] - exact[second]) > _equal(exact))
    if not ordered.any():
        return 1.0
    gaps, found_gaps = ((values[first] - values[second])[ordered] for values in (exact, found))
    lost = np.abs(found_gaps - gaps)[:, None] >= np.abs(gaps)
    return float(min((np.sign(gaps) == np.sign(found_gaps)).mean(), 1 - lost.mean() / 2))


def _equal(exact: Numbers) -> float:
    return _EQUAL * max(float(exact.std()), _EQUAL)


def _same_order(exact: Numbers, found: Numbers) -> float:
    """Return the share of pairs within a row of (B, n) that keep their order; 1 where none has one."""
    first, second = np.triu_indices(exact.shape[1], k=1)
    gaps, found_gaps = (values[:, first] - values[:, second] for values in (exact, found))
    ordered = np.abs(gaps) > _equal(exact)
    if not ordered.any():
        return 1.0
    return float((np.sign(gaps) == np.sign(found_gaps))[ordered].mean())
