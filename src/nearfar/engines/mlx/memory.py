"""How much memory MLX may use, and running a batch in parts that fit into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx

from nearfar.engines.common.oom import is_out_of_memory
from nearfar.models.tokenization.row import Row

# The attention area, rows × length², of a part that is never cut further: one text of 8,192 tokens. For lengths that
# mlx has no fused kernel for, each head stores as many numbers. A guess.
_MAX_ATTENTION_AREA = 8192 * 8192
_CACHE_RATIO = 0.1  # of the GPU's recommended memory, for buffers kept for the next forward; a guess
_CACHE_BYTES = 256 * 1024**2  # on a CPU, which allocates fast; a guess


def limit_memory() -> None:
    """Limit the buffers that mlx caches; on a GPU, keep the model's weights from being paged out."""
    if not mx.metal.is_available():
        mx.set_cache_limit(_CACHE_BYTES)
        return
    recommended = int(mx.device_info()["max_recommended_working_set_size"])
    mx.set_cache_limit(int(recommended * _CACHE_RATIO))
    mx.set_wired_limit(recommended)


def run_in_parts(batch: Sequence[Row], length_step: int, run: Callable[[int, Sequence[Row]], None]) -> list[int]:
    """Call ``run`` with parts of the batch, each with its first index; return the rows that don't fit alone.

    A part that runs out of memory is run again in halves.
    """
    too_large: list[int] = []
    pending = list(split(batch, length_step))
    while pending:
        start, rows = pending.pop(0)
        try:
            run(start, rows)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            mx.clear_cache()
            if half := len(rows) // 2:
                pending[:0] = [(start, rows[:half]), (start + half, rows[half:])]
            else:
                too_large.append(start)
    return too_large


def split(batch: Sequence[Row], length_step: int) -> Iterator[tuple[int, Sequence[Row]]]:
    """Yield parts of the batch with a limited attention area, each with its first index."""
    longest = max(len(row.ids) for row in batch)
    length = -(-longest // length_step) * length_step
    rows = max(_MAX_ATTENTION_AREA // (length * length), 1)
    for start in range(0, len(batch), rows):
        yield start, batch[start : start + rows]
