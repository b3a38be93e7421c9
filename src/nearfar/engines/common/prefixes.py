"""Rows of a batch that begin with the same ids: a decoder needs to compute such a prefix only once.

A token of a causal model attends to none after it, so its hidden state in a common prefix is the same in every row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from nearfar.models.tokenization.row import Row

MIN_PREFIX_TOKENS = 16  # splitting off a shorter prefix costs as much as computing it again; a guess
_MAX_CANDIDATES = 16  # prefix lengths that are compared


class PrefixGroup(Struct, frozen=True, kw_only=True):
    """The indices of rows with the same first ``length`` ids; each row is longer. 0: nothing in common."""

    length: int
    rows: list[int]


def group_by_prefix(rows: Sequence[Row], skipped: int | None = None) -> list[PrefixGroup]:
    """Split the rows into groups that save as many tokens as can be found; every index occurs once.

    After sorting, rows with a common prefix are adjacent. Each prefix length is tried as the least that keeps
    adjacent rows together, the most frequent lengths first, and the one that saves most is used. Rows with type ids
    share nothing. Each row keeps an id other than ``skipped`` after its prefix.
    """
    order = sorted(range(len(rows)), key=lambda at: rows[at].ids)
    common = [common_prefix_length(rows[a], rows[b], skipped) for a, b in pairwise(order)]
    candidates = [length for length, _ in Counter(common).most_common() if length >= MIN_PREFIX_TOKENS]
    splits = [_split(order, common, least) for least in candidates[:_MAX_CANDIDATES]]
    best = max(splits, key=_saved_tokens, default=[])
    rest = sorted(set(order).difference(*(group.rows for group in best)))
    return [*best, PrefixGroup(length=0, rows=rest)] if rest else best


def token_costs(rows: Sequence[Row]) -> list[int]:
    """Return the tokens that each row adds to a batch of all of them: a prefix counts for the first of its rows."""
    costs = [len(row.ids) for row in rows]
    for group in group_by_prefix(rows):
        for index in group.rows[1:]:
            costs[index] -= group.length
    return costs


def _split(order: Sequence[int], common: Sequence[int], least: int) -> list[PrefixGroup]:
    """Return the groups of adjacent rows that have ``least`` ids or more in common."""
    groups: list[PrefixGroup] = []
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or common[end - 1] < least:
            if end - start > 1:
                groups.append(PrefixGroup(length=min(common[start : end - 1]), rows=list(order[start:end])))
            start = end
    return groups


def _saved_tokens(groups: Sequence[PrefixGroup]) -> int:
    return sum(group.length * (len(group.rows) - 1) for group in groups)


def common_prefix_length(one: Row, other: Row, skipped: int | None = None) -> int:
    """Count the first ids that are the same in both, by bisection; both have one left that isn't ``skipped``."""
    if one.type_ids or other.type_ids:
        return 0
    a, b = one.ids, other.ids
    low, high = 0, max(min(_last(a, skipped), _last(b, skipped)), 0)
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _last(ids: Sequence[int], skipped: int | None) -> int:
    """Return the index of the last id that isn't ``skipped``; -1 if there is none."""
    last = len(ids) - 1
    while last >= 0 and ids[last] == skipped:
        last -= 1
    return last
