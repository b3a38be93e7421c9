"""Arrays over a padded batch → what each text became: only the tokens that count, only the weights above 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nearfar.core.errors import EngineUnavailable
from nearfar.core.types import Representation, SparseVector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.types import FloatArray
    from nearfar.engines.base import OpenRequest
    from nearfar.models.recipe.recipe import Recipe
    from nearfar.models.recipe.sparse import Sparse
    from nearfar.models.tokenization.row import Row

_COMPARED_TOKENS = 32  # of a text: that many show what a precision costs


def refuse_blind(request: OpenRequest) -> None:
    """Raise EngineUnavailable where tokens put after a query may see nothing: only torch makes 0 of that."""
    how = request.recipe.multi_vector
    if how and how.window:
        raise EngineUnavailable(
            f"{request.folder}: a window of {how.window} tokens leaves some of those put after a query nothing to see; "
            "use --engine torch"
        )


def represent(batch: Sequence[Row], outputs: Sequence[FloatArray], recipe: Recipe) -> list[Representation]:
    """Give each row's part of the arrays, which come in the order of the recipe's outputs."""
    named = dict(zip(recipe.outputs, outputs, strict=True))
    return [_one(row, {output: array[at] for output, array in named.items()}, recipe) for at, row in enumerate(batch)]


def own_states(batch: Sequence[Row], hidden: FloatArray) -> list[FloatArray]:
    """Give each row's part (n, H) of the hidden states (B, T, H), without padding."""
    return [hidden[at, : len(row.ids)].copy() for at, row in enumerate(batch)]


def _one(row: Row, own: dict[str, FloatArray], recipe: Recipe) -> Representation:
    tokens, weights = own.get("multi_vector"), own.get("sparse")
    return Representation(
        dense=own["dense"].copy() if "dense" in own else None,
        multi_vector=None if tokens is None else _kept(row, tokens),
        sparse=None if weights is None or recipe.sparse is None else _weights(row, weights, recipe.sparse),
    )


def _kept(row: Row, tokens: FloatArray) -> FloatArray:
    """Take the vectors (n, M) that count out of (T, M)."""
    at = slice(len(row.ids)) if row.vector_positions is None else row.vector_positions
    kept: FloatArray = tokens[at].copy()
    return kept


def _weights(row: Row, weights: FloatArray, how: Sparse) -> SparseVector:
    """Gather (V,), or (T,) of the row's own tokens, of which the same one may come several times."""
    if how.method == "lexical":
        counted = [at for at, found in enumerate(row.ids) if found not in how.skip_ids]
        ids, which = np.unique(np.array([row.ids[at] for at in counted], dtype=np.int32), return_inverse=True)
        values = np.zeros(len(ids), dtype=np.float32)
        np.maximum.at(values, which, weights[counted])
    else:
        ids, values = np.arange(len(weights), dtype=np.int32), weights
    weighs = ~(values <= 0)  # what isn't a number stays, to be refused
    return SparseVector(ids[weighs], values[weighs], how.size)


def comparable(outputs: Sequence[FloatArray], batch: Sequence[Row]) -> FloatArray:
    """Lay the outputs out as (N, X), a row for each text and output, so that two ways of computing can be compared."""
    rows = [
        (array[at][: min(len(row.ids), _COMPARED_TOKENS)] if array.ndim > 2 else array[at]).ravel()  # noqa: PLR2004
        for at, row in enumerate(batch)
        for array in outputs
    ]
    return stack([row[None] for row in rows if row.any()])  # nothing has no direction


def stack(parts: Sequence[FloatArray]) -> FloatArray:
    """Put (n, X) arrays over each other, the narrower ones filled up with 0; (n,) arrays end to end."""
    width = max((part.shape[1] for part in parts if part.ndim > 1), default=None)
    if width is None:
        return np.concatenate(parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
