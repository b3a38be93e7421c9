"""Validates an engine's results: the right shape, finite, and no vector of zeros. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nearfar.core.errors import EngineError
from nearfar.core.types import EngineMethod, FloatArray, Output, Representation
from nearfar.engines.base import EngineInfo, EngineOutput
from nearfar.models.tokenization.row import Row


def validate(
    results: EngineOutput, rows: Sequence[Row], method: EngineMethod, info: EngineInfo
) -> tuple[EngineOutput, list[int]]:
    """Return the results of ``rows``, and the indices of those that are invalid.

    Raises EngineError where their number or shape is not that of the rows.
    """
    count = len(rows)
    if method in {"represent", "hidden_states"}:
        if len(results) != count:
            raise EngineError(f"the engine returned {len(results)} results for {count} rows")
        if method == "represent":
            return results, [at for at, result in enumerate(results) if _is_invalid(result, info)]
        pairs = zip(results, rows, strict=True)
        return results, [at for at, (states, row) in enumerate(pairs) if _is_invalid_hidden(states, len(row.ids))]
    array: FloatArray = np.asarray(results, dtype=np.float32)
    labels = (info.labels,) if info.labels > 1 else ()
    expected = (count, info.dim) if method == "embed" else (count, *labels)
    if array.shape != expected:
        raise EngineError(f"the engine returned the shape {array.shape} instead of {expected}")
    return array, _invalid_rows(array, may_be_zero=method == "score")


def _invalid_rows(results: FloatArray, *, may_be_zero: bool) -> list[int]:
    """Return the indices of rows with an infinity or a NaN, or with nothing but zeros."""
    rows = results.reshape(len(results), -1)  # (B,) → (B, 1)
    invalid = ~np.isfinite(rows).all(axis=1)
    if not may_be_zero:
        invalid |= ~rows.any(axis=1)
    indices: list[int] = np.flatnonzero(invalid).tolist()
    return indices


def _is_invalid_hidden(states: FloatArray, length: int) -> bool:
    """Return whether hidden states (n, H) don't belong to a text of this length. One token's may be all zeros."""
    if states.ndim != 2 or len(states) != length:  # noqa: PLR2004 — (n, H)
        return True
    return bool(_invalid_rows(states[None], may_be_zero=False))


def _is_invalid(result: Representation, info: EngineInfo) -> bool:
    """Return whether an output is missing or invalid. A text may have no token vectors and no sparse weights."""
    outputs: dict[Output, FloatArray | None] = {
        "dense": result.dense,
        "multi_vector": result.multi_vector,
        "sparse": result.sparse.values if result.sparse else None,
    }
    required = [outputs[output] for output in info.outputs]
    if not all(output is not None and np.isfinite(output).all() for output in required):
        return True
    if result.dense is not None and (result.dense.shape != (info.dim,) or not result.dense.any()):
        return True
    vectors = result.multi_vector
    return vectors is not None and len(vectors) > 0 and bool(_invalid_rows(vectors, may_be_zero=False))
