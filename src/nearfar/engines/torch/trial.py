"""Trying a faster way of running a checkpoint on a few rows: it is taken only when it gives the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from nearfar.engines.common.prefixes import MIN_PREFIX_TOKENS, common_prefix_length
from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from nearfar.engines.base import OpenRequest

_LONGEST = 32  # tokens: that much of a text shows whether two ways agree, and large models open soon
_MADE_UP = (5, 9, 9, 2, 16, 32)  # lengths of rows where there are no probes
# How far two ways of computing the same may lie apart, of the largest row's norm. Rounding gives a hundredth of it.
_APART = {torch.float32: 5e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def trial_rows(request: OpenRequest, vocabulary: int) -> list[Row]:
    """Give the beginnings of the probes, or where there are none, rows of seeded ids.

    Where all probes begin alike, as a question about a document does, most of that is left out: rows must differ.
    """
    most = min(_LONGEST, request.recipe.max_tokens)
    if request.probes:
        same = common_prefix_length(min(request.probes, key=_ids), max(request.probes, key=_ids))
        return [_cut(row, most, max(same - most // 2, 0)) for row in request.probes]
    numbers = np.random.default_rng(20)
    rows = []
    for length in (min(length, most) for length in _MADE_UP):
        ids = numbers.integers(vocabulary, size=length).tolist()
        types = [0] * (length // 2) + [1] * (length - length // 2) if request.recipe.type_ids else None
        rows.append(Row(ids, types, length, 0))
    return rows


def sharing_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Make rows of those that begin alike and then differ, of ``most`` tokens; none where they would hold too few."""
    own = min(most - MIN_PREFIX_TOKENS, MIN_PREFIX_TOKENS)
    if own < 1:
        return []
    head = (rows[0].ids * MIN_PREFIX_TOKENS)[:MIN_PREFIX_TOKENS]
    return [Row([*head, *row.ids[-own:]], None, 0, 0) for row in rows]


def _ids(row: Row) -> list[int]:
    return row.ids


def _cut(row: Row, most: int, left_out: int) -> Row:
    """Take ``most`` ids behind those ``left_out``."""
    end = left_out + most
    return Row(
        row.ids[left_out:end],
        row.type_ids[left_out:end] if row.type_ids else None,
        row.token_count,
        row.truncated_tokens,
    )


def gives(expected: Tensor, run: Callable[[Sequence[Row]], Tensor], rows: Sequence[Row], dtype: torch.dtype) -> bool:
    """Tell whether ``run`` can run the rows at all, and if so with the ``expected`` numbers, within rounding."""
    try:
        with torch.inference_mode():
            found = run(rows)
    except Exception:  # noqa: BLE001 — a family that it doesn't fit may raise anything from within its modules
        return False
    apart = (found - expected).reshape(len(rows), -1).norm(dim=1).max()
    return bool(apart <= _APART[dtype] * expected.reshape(len(rows), -1).norm(dim=1).max())
