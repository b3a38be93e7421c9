from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.serving.queue.batching import pack, padded_tokens, plan


@pytest.mark.parametrize(
    ("lengths", "budget", "groups"),
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
def test_a_group_holds_rows_of_like_length_within_the_budget(
    lengths: list[int], budget: int, groups: list[list[int]]
) -> None:
    assert groups == plan(lengths, budget)


@given(st.lists(st.integers(0, 600), max_size=200), st.integers(1, 4096))
def test_every_row_is_in_one_group_and_only_a_lone_row_goes_over(lengths: list[int], budget: int) -> None:
    groups = plan(lengths, budget)

    assert sorted(range(len(lengths))) == sorted(index for group in groups for index in group)
    for group in groups:
        assert len(group) == 1 or padded_tokens([lengths[index] for index in group]) <= budget


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 4096), st.integers(0, 200))
def test_no_group_has_more_padding_than_allowed(lengths: list[int], budget: int, max_padding: int) -> None:
    groups = plan(lengths, budget, max_padding)

    assert sorted(range(len(lengths))) == sorted(index for group in groups for index in group)
    for group in groups:
        inside = [lengths[index] for index in group]
        assert padded_tokens(inside) - sum(inside) <= max_padding


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 4096))
def test_packed_groups_count_tokens_alone(lengths: list[int], budget: int) -> None:
    groups = pack(lengths, budget)

    assert sorted(range(len(lengths))) == sorted(index for group in groups for index in group)
    for group in groups:
        assert len(group) == 1 or sum(lengths[index] for index in group) <= budget
