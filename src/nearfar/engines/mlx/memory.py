"""How much memory MLX may take, how large a forward may be, and what to do when one was too large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nearfar.models.tokenization.row import Row

# The least that a batch of long texts may take in attention, rows × length²: one text of 8,192 tokens. For lengths that
# mlx has no fused kernel for, each head holds so many numbers. A guess.
_ATTENTION_AREA = 8192 * 8192
_CACHE_SHARE = 0.1  # of the memory that the GPU should use at most: buffers kept for the next forward; a guess
_CACHE_BYTES = 256 * 1024**2  # on a processor, whose allocator is cheap; a guess


def bound_memory() -> None:
    """Bound the buffers that mlx keeps; on a GPU, keep the model's weights from being paged out."""
    if not mx.metal.is_available():
        mx.set_cache_limit(_CACHE_BYTES)
        return
    most = int(mx.device_info()["max_recommended_working_set_size"])
    mx.set_cache_limit(int(most * _CACHE_SHARE))
    mx.set_wired_limit(most)


def in_parts(batch: Sequence[Row], length_step: int) -> Iterator[tuple[int, Sequence[Row]]]:
    """Cut a batch so that attention's area, rows × length², stays bounded; give each part with its first index."""
    longest = max(len(row.ids) for row in batch)
    length = -(-longest // length_step) * length_step
    most = max(_ATTENTION_AREA // (length * length), 1)
    for start in range(0, len(batch), most):
        yield start, batch[start : start + most]


def memory_in_use() -> dict[str, int]:
    """Give bytes: ``active`` of arrays, ``cache`` of buffers kept, ``peak`` of both so far; of the whole process."""
    return {"active": mx.get_active_memory(), "cache": mx.get_cache_memory(), "peak": mx.get_peak_memory()}
