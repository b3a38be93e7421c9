"""Lengths and a budget → groups. Pure: no clock, no threads, no queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def plan(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Group indices so that no group's padded area, rows × longest, goes over the budget.

    Rows of similar length share a group, so little is padded; a row that is over the budget by itself gets
    a group of its own. Groups come shortest first; every index appears exactly once.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = max(lengths[index], 1)
        if groups and (len(groups[-1]) + 1) * longest <= budget_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def padded_tokens(lengths: Sequence[int]) -> int:
    """Give the area a batch of these lengths takes once it is padded."""
    return len(lengths) * max(lengths, default=0)
