"""Rows are padded on the right, to the longest or to a length that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from nearfar.engines.common.padding import pad
from nearfar.models.tokenization.row import Row

ROWS = [Row([5, 6, 7], [0, 0, 1], 3, 0), Row([8], None, 1, 0)]


@pytest.mark.parametrize(("length", "width"), [(0, 3), (2, 3), (3, 3), (5, 5)])
def test_rows_are_padded_to_the_longest_or_to_a_larger_length(length: int, width: int) -> None:
    padded = pad(ROWS, 9, length)

    assert padded.types is not None
    for found, rows, filler in (
        (padded.ids, [[5, 6, 7], [8]], 9),
        (padded.mask, [[1, 1, 1], [1]], 0),
        (padded.types, [[0, 0, 1], [0]], 0),
    ):
        np.testing.assert_array_equal(found, [row + [filler] * (width - len(row)) for row in rows])


def test_no_types_are_made_where_all_are_the_first() -> None:
    assert pad(ROWS[1:], 9).types is None
