"""Lengths and a budget → groups. Pure: no clock, no threads, no queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def plan(lengths: Sequence[int], budget_tokens: int, max_padding: int | None = None) -> list[list[int]]:
    """Group indices so that no group's padded area, rows × longest, goes over the budget.

    Rows of similar length share a group, with at most ``max_padding`` tokens of padding in it (None: any amount); a
    row that is over the budget by itself gets a group of its own. Groups come shortest first; every index appears
    exactly once.
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = max(lengths[index], 1)
        area = (len(groups[-1]) + 1) * length if groups else 0
        if groups and area <= budget_tokens and (max_padding is None or area - tokens - length <= max_padding):
            groups[-1].append(index)
            tokens += length
        else:
            groups.append([index])
            tokens = length
    return groups


def pack(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Group indices so that no group has more tokens than the budget, for engines to which padding costs nothing.

    Otherwise as ``plan``.
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        tokens += lengths[index]
        if groups and tokens <= budget_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
            tokens = lengths[index]
    return groups


def padded_tokens(lengths: Sequence[int]) -> int:
    """Give the area a batch of these lengths takes once it is padded."""
    return len(lengths) * max(lengths, default=0)
