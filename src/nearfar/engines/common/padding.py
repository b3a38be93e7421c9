"""Rows of token ids → arrays padded on the right, and padded arrays → rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from nearfar.core.types import FloatArray
from nearfar.models.tokenization.row import Row


class PaddedBatch(Struct, frozen=True, kw_only=True):
    """A batch as (B, T) int64 arrays."""

    ids: npt.NDArray[np.int64]
    # 1, or 0 on padding and on unattended ids.
    mask: npt.NDArray[np.int64]
    # None where all are 0.
    types: npt.NDArray[np.int64] | None


def pad(batch: Sequence[Row], padding_id: int, length: int = 0) -> PaddedBatch:
    """Pad the rows to the longest, or to ``length`` if that is more, without a Python loop over tokens."""
    row_ids = [row.ids for row in batch]
    lengths = np.array(list(map(len, row_ids)))
    filled = np.arange(max(lengths.max(), length)) < lengths[:, None]  # (B, T)
    ids = np.full(filled.shape, padding_id, dtype=np.int64)
    ids[filled] = np.fromiter(chain.from_iterable(row_ids), np.int64, int(lengths.sum()))
    types = None
    if any(row_types := [row.type_ids for row in batch]):
        types = np.zeros(filled.shape, dtype=np.int64)
        types[filled] = list(
            chain.from_iterable(own or [0] * len(row) for own, row in zip(row_types, row_ids, strict=True))
        )
    attended = filled
    if any(unattended := [row.unattended for row in batch]):
        attended = np.arange(filled.shape[1]) < (lengths - unattended)[:, None]
    return PaddedBatch(ids=ids, mask=attended.astype(np.int64), types=types)


def round_up_length(longest: int, step: int, limit: int) -> int:
    """Round a batch's length up to a multiple of ``step``, but not past the model's ``limit``."""
    return max(longest, min(-(-longest // step) * step, limit))


def split_by_length(batch: Sequence[Row]) -> Iterator[tuple[list[int], list[Row]]]:
    """Yield the rows of each length with their indices in the batch, so that none of them needs padding."""
    for length in sorted({len(row.ids) for row in batch}):
        indices = [at for at, row in enumerate(batch) if len(row.ids) == length]
        yield indices, [batch[at] for at in indices]


def unpad(batch: Sequence[Row], hidden: FloatArray) -> list[FloatArray]:
    """Return each row's part (n, H) of hidden states (B, T, H)."""
    return [hidden[at, : len(row.ids)].copy() for at, row in enumerate(batch)]
