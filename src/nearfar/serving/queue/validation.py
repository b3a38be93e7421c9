"""Whether what an engine gave is an answer: of the right shape, finite, and not a vector of zeros. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nearfar.core.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.types import FloatArray, Output, Representation
    from nearfar.engines.base import EngineInfo, EngineOutput
    from nearfar.serving.queue.scheduler import Call


def checked(
    given: EngineOutput, lengths: Sequence[int], call: Call, info: EngineInfo
) -> tuple[EngineOutput, list[int]]:
    """Give the answers, and which of them are none.

    Raises EngineError where they have another shape than those of rows of these lengths must have.
    """
    count = len(lengths)
    if call in {"represent", "hidden_states"}:
        if len(given) != count:
            raise EngineError(f"the engine gave {len(given)} texts where {count} were due")
        if call == "represent":
            return given, [at for at, one in enumerate(given) if _is_broken(one, info)]
        return given, [at for at, (states, n) in enumerate(zip(given, lengths, strict=True)) if _is_torn(states, n)]
    results: FloatArray = np.asarray(given, dtype=np.float32)
    labels = (info.labels,) if info.labels > 1 else ()
    expected = (count, info.dim) if call == "embed" else (count, *labels)
    if results.shape != expected:
        raise EngineError(f"the engine gave {results.shape} where {expected} was due")
    return results, _broken(results, may_be_zero=call == "score")


def _broken(results: FloatArray, *, may_be_zero: bool) -> list[int]:
    """List the rows with something infinite or not a number, or with nothing but zeros."""
    rows = results.reshape(len(results), -1)  # (B,) → (B, 1)
    broken = ~np.isfinite(rows).all(axis=1)
    if not may_be_zero:
        broken |= ~rows.any(axis=1)
    indices: list[int] = np.flatnonzero(broken).tolist()
    return indices


def _is_torn(states: FloatArray, length: int) -> bool:
    """Tell whether hidden states (n, H) are another text's, or no answer. One token's may be all zeros."""
    return states.ndim != 2 or len(states) != length or bool(_broken(states[None], may_be_zero=False))  # noqa: PLR2004


def _is_broken(one: Representation, info: EngineInfo) -> bool:
    """Tell whether a part is missing or no answer. A text may have no tokens, or no weights, that count."""
    parts: dict[Output, FloatArray | None] = {
        "dense": one.dense,
        "multi_vector": one.multi_vector,
        "sparse": one.sparse.values if one.sparse else None,
    }
    there = [parts[output] for output in info.outputs]
    if not all(part is not None and np.isfinite(part).all() for part in there):
        return True
    if one.dense is not None and (one.dense.shape != (info.dim,) or not one.dense.any()):
        return True
    tokens = one.multi_vector
    return tokens is not None and len(tokens) > 0 and bool(_broken(tokens, may_be_zero=False))
