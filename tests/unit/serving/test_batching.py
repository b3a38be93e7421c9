"""Batch sizes: rows of similar length share a batch within the token budget and the padding limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.serving.queue.batching import group_by_length


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "groups"),
    [
        ([], 10, []),
        ([3], 10, [[0]]),
        ([3, 3, 3], 9, [[0, 1, 2]]),
        ([3, 3, 3], 8, [[0, 1], [2]]),
        ([9, 1, 9, 1], 18, [[1, 3], [0, 2]]),
        ([50, 2], 10, [[1], [0]]),
        ([0, 0], 10, [[0, 1]]),
    ],
)
def test_rows_of_similar_length_are_grouped(lengths: list[int], max_tokens: int, groups: list[list[int]]) -> None:
    assert groups == group_by_length(lengths, max_tokens, 1000)


@given(st.lists(st.integers(0, 600), max_size=200), st.integers(1, 4096), st.one_of(st.none(), st.integers(0, 200)))
def test_every_row_is_in_one_group_within_the_limits(
    lengths: list[int], max_tokens: int, max_padding: int | None
) -> None:
    """Only a row that is longer than the budget exceeds it, alone in its group."""
    groups = group_by_length(lengths, max_tokens, max_padding)

    assert sorted(range(len(lengths))) == sorted(index for group in groups for index in group)
    for group in (group for group in groups if len(group) > 1):
        grouped = [max(lengths[index], 0 if max_padding is None else 1) for index in group]
        area = len(grouped) * max(grouped)
        assert (sum(grouped) if max_padding is None else area) <= max_tokens
        assert max_padding is None or area - sum(grouped) <= max_padding
