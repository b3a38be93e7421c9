"""PaddedBatch arrays of several outputs → one representation per row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nearfar.core.errors import EngineUnavailable
from nearfar.core.types import FloatArray, Representation, SparseVector
from nearfar.engines.base import OpenRequest
from nearfar.models.recipe.recipe import Recipe, Sparse
from nearfar.models.tokenization.row import Row


def refuse_torch_only(request: OpenRequest) -> None:
    """Raise EngineUnavailable for what only the torch engine computes.

    That is pooling that leaves out a prompt's tokens, and query expansion tokens that may attend to nothing.
    """
    multi_vector = request.recipe.multi_vector
    if multi_vector and multi_vector.window:
        raise EngineUnavailable(
            f"{request.folder}: with an attention window of {multi_vector.window} tokens some query expansion tokens "
            "attend to nothing; use --engine torch"
        )
    if request.recipe.leaves_out_prompt:
        raise EngineUnavailable(
            f"{request.folder}: its Pooling has include_prompt = false, which leaves the prompt's tokens out; use "
            "--engine torch"
        )


def represent(batch: Sequence[Row], outputs: Sequence[FloatArray], recipe: Recipe) -> list[Representation]:
    """Return each row's part of the arrays, which are in the order of the recipe's outputs."""
    named = dict(zip(recipe.outputs, outputs, strict=True))
    return [
        _represent_row(row, {output: array[at] for output, array in named.items()}, recipe)
        for at, row in enumerate(batch)
    ]


def _represent_row(row: Row, own: dict[str, FloatArray], recipe: Recipe) -> Representation:
    tokens, weights = own.get("multi_vector"), own.get("sparse")
    positions = slice(len(row.ids)) if row.vector_positions is None else row.vector_positions
    return Representation(
        dense=own["dense"].copy() if "dense" in own else None,
        multi_vector=None if tokens is None else tokens[positions].copy(),  # (T, M) → (n, M)
        sparse=None if weights is None or recipe.sparse is None else _to_sparse(row, weights, recipe.sparse),
    )


def _to_sparse(row: Row, weights: FloatArray, sparse: Sparse) -> SparseVector:
    """Collect the weights above 0 of the vocabulary (V,), or of the row's tokens (T,), the largest for each id."""
    if sparse.method == "lexical":
        positions = [at for at, token in enumerate(row.ids) if token not in sparse.skip_ids]
        ids, which = np.unique(np.array([row.ids[at] for at in positions], dtype=np.int32), return_inverse=True)
        values = np.zeros(len(ids), dtype=np.float32)
        np.maximum.at(values, which, weights[positions])
    else:
        ids, values = np.arange(len(weights), dtype=np.int32), weights
    kept = ~(values <= 0)  # keeps NaN, so that the answer is refused
    ids, values = ids[kept], values[kept]
    if sparse.max_active is not None and len(values) > sparse.max_active:
        largest = np.sort(np.argsort(-values, kind="stable")[: sparse.max_active])
        ids, values = ids[largest], values[largest]
    return SparseVector(ids, values, sparse.size)
