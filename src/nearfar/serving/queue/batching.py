"""Batching: which rows run together. No queue, no engine."""

from __future__ import annotations

from collections.abc import Sequence

from nearfar.models.tokenization.row import Row


def group_by_length(lengths: Sequence[int], max_tokens: int, max_padding: int | None) -> list[list[int]]:
    """Group the indices of ``lengths``, shortest first, so that no group exceeds ``max_tokens``.

    A group counts as its padded area, rows × longest, of which at most ``max_padding`` tokens may be padding. For an
    engine that doesn't pad (``max_padding`` None) it counts as the sum of its lengths. A longer row gets a group of its
    own. Every index appears once.
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index] if max_padding is None else max(lengths[index], 1)
        tokens += length
        area = (len(groups[-1]) + 1) * length if groups else 0
        fits = tokens <= max_tokens if max_padding is None else area <= max_tokens and area - tokens <= max_padding
        if groups and fits:
            groups[-1].append(index)
        else:
            groups.append([index])
            tokens = length
    return groups


def group_duplicates(rows: Sequence[Row]) -> list[list[int]]:
    """Group the indices of rows that are identical input: one of each group runs for all of them."""
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        type_ids = None if row.type_ids is None else tuple(row.type_ids)
        positions = None if row.vector_positions is None else tuple(row.vector_positions)
        groups.setdefault((tuple(row.ids), type_ids, row.unattended, row.unpooled, positions), []).append(index)
    return list(groups.values())
