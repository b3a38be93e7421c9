"""Rows that begin with the same ids, found among a batch's: a decoder need compute such a head only once.

A token of a causal model sees none that come after it, so what it computes for a head is the same in every row. Pure:
ids in, groups out.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.models.tokenization.row import Row

LEAST = 16  # tokens: a shorter head costs as much to be laid apart as to be computed again; a guess
_TRIED = 16  # lengths of heads that are weighed against each other


class Group(Struct, frozen=True, kw_only=True):
    """Rows, by their index, whose first ``head`` ids are the same; each has more than those. 0 where none are."""

    head: int
    rows: list[int]


def find_groups(rows: Sequence[Row]) -> list[Group]:
    """Part the rows so that as many tokens as can be found are shared; every index appears once.

    Rows that are alike lie side by side once sorted. Each length of head is tried as the least that keeps neighbours
    together, the commonest lengths first, and the one that saves most is taken. Rows with types share nothing.
    """
    order = sorted(range(len(rows)), key=lambda at: rows[at].ids)
    same = [alike(rows[a], rows[b]) for a, b in pairwise(order)]
    tried = [length for length, _ in Counter(same).most_common() if length >= LEAST][:_TRIED]
    ways = [_split(order, same, least) for least in tried]
    best = max(ways, key=_saved, default=[])
    alone = sorted(set(order).difference(*(group.rows for group in best)))
    return [*best, Group(head=0, rows=alone)] if alone else best


def costs(rows: Sequence[Row]) -> list[int]:
    """Give the tokens that each row adds to a batch that has them all: a head counts for the first of its rows."""
    found = [len(row.ids) for row in rows]
    for group in find_groups(rows):
        for index in group.rows[1:]:
            found[index] -= group.head
    return found


def _split(order: Sequence[int], same: Sequence[int], least: int) -> list[Group]:
    """Give the groups of neighbours that are alike in ``least`` ids or more."""
    groups: list[Group] = []
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or same[end - 1] < least:
            if end - start > 1:
                groups.append(Group(head=min(same[start : end - 1]), rows=list(order[start:end])))
            start = end
    return groups


def _saved(groups: Sequence[Group]) -> int:
    return sum(group.head * (len(group.rows) - 1) for group in groups)


def alike(one: Row, other: Row) -> int:
    """Count the first ids that are the same in both, so that either has one left; by halves, as slices compare fast."""
    if one.type_ids or other.type_ids:
        return 0
    a, b = one.ids, other.ids
    low, high = 0, min(len(a), len(b)) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
