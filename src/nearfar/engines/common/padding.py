"""Rows of ids → arrays padded on the right, the one shape that every engine takes."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nearfar.models.tokenization.row import Row


class Padded(Struct, frozen=True, kw_only=True):
    """A batch as (B, T) int64 arrays; ``types`` is None where all are 0.

    ``mask`` is 0 on padding and on ids that no token looks at, 1 on the others.
    """

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64] | None


def pad(batch: Sequence[Row], padding_id: int, length: int = 0) -> Padded:
    """Lay the rows out to the length of the longest, or to a larger ``length``, without a Python loop over tokens."""
    lengths = np.array([len(row.ids) for row in batch])
    taken = np.arange(max(lengths.max(), length)) < lengths[:, None]  # (B, T)
    count = int(lengths.sum())
    ids = np.full(taken.shape, padding_id, dtype=np.int64)
    ids[taken] = np.fromiter(chain.from_iterable(row.ids for row in batch), np.int64, count)
    types = None
    if any(row.type_ids for row in batch):
        types = np.zeros(taken.shape, dtype=np.int64)
        flat = chain.from_iterable(row.type_ids or [0] * len(row.ids) for row in batch)
        types[taken] = np.fromiter(flat, np.int64, count)
    seen = taken
    if any(row.unattended for row in batch):
        seen = np.arange(taken.shape[1]) < (lengths - [row.unattended for row in batch])[:, None]
    return Padded(ids=ids, mask=seen.astype(np.int64), types=types)


def rounded_length(longest: int, step: int, most: int) -> int:
    """Round a batch's length up to a multiple of ``step``, but never past the ``most`` that the model takes."""
    return max(longest, min(-(-longest // step) * step, most))


def by_length(batch: Sequence[Row]) -> Iterator[tuple[list[int], list[Row]]]:
    """Part the rows by length, so that no part needs padding; each comes with its rows' places in the batch."""
    for length in sorted({len(row.ids) for row in batch}):
        places = [at for at, row in enumerate(batch) if len(row.ids) == length]
        yield places, [batch[at] for at in places]
