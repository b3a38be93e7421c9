"""Checks a faster code path on a few rows: it is only used if it returns the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nearfar.engines.base import OpenRequest
from nearfar.engines.common.prefixes import MIN_PREFIX_TOKENS, common_prefix_length
from nearfar.models.tokenization.row import Row

_MAX_TOKENS = 32  # of a row: enough to see a difference, and large models open quickly
_RANDOM_LENGTHS = (5, 9, 9, 2, 16, 32)  # of rows where there are no probes
# How far two implementations may differ, relative to the largest row's norm. Rounding makes a hundredth of it.
_TOLERANCE = {torch.float32: 5e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def check_rows(request: OpenRequest, vocabulary: int) -> list[Row]:
    """Return the beginnings of the probes, or rows of seeded random ids if there are none.

    Most of a prefix that all probes share, such as an LLM reranker's instruction, is left out: rows must differ.
    """
    limit = min(_MAX_TOKENS, request.recipe.max_tokens)
    if request.probes:
        by_ids = sorted(request.probes, key=lambda row: row.ids)
        start = max(common_prefix_length(by_ids[0], by_ids[-1]) - limit // 2, 0)
        return [_cut(row, start, start + limit) for row in request.probes]
    numbers = np.random.default_rng(20)
    rows = []
    for length in (min(length, limit) for length in _RANDOM_LENGTHS):
        ids = numbers.integers(vocabulary, size=length).tolist()
        types = [0] * (length // 2) + [1] * (length - length // 2) if request.recipe.type_ids else None
        rows.append(Row(ids, types, length, 0))
    return rows


def rows_with_prefix(rows: Sequence[Row], limit: int) -> list[Row]:
    """Return rows of at most ``limit`` tokens with a common prefix; none if the limit is too low for one."""
    own = min(limit - MIN_PREFIX_TOKENS, MIN_PREFIX_TOKENS)
    if own < 1:
        return []
    prefix = (rows[0].ids * MIN_PREFIX_TOKENS)[:MIN_PREFIX_TOKENS]
    return [Row([*prefix, *row.ids[-own:]], None, 0, 0) for row in rows]


def _cut(row: Row, start: int, end: int) -> Row:
    types = row.type_ids[start:end] if row.type_ids else None
    return Row(row.ids[start:end], types, row.token_count, row.truncated_tokens)


def returns_same(
    expected: Tensor, run: Callable[[Sequence[Row]], Tensor], rows: Sequence[Row], dtype: torch.dtype
) -> bool:
    """Return whether ``run`` can run the rows, and returns the ``expected`` numbers within rounding."""
    try:
        with torch.inference_mode():
            found = run(rows)
    except Exception:  # noqa: BLE001 — an architecture that it doesn't suit may raise anything from its modules
        return False
    difference = (found - expected).reshape(len(rows), -1).norm(dim=1).max()
    return bool(difference <= _TOLERANCE[dtype] * expected.reshape(len(rows), -1).norm(dim=1).max())
