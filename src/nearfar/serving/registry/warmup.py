"""Warm-up: forwards of common lengths before a model is ready, for engines that compile each sequence length.

They show how fast a model is, before its first request.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from nearfar.core.types import EngineMethod
from nearfar.engines.base import Engine
from nearfar.models.tokenization.row import Row

_SHORTEST, _LONGEST = 16, 512  # beyond, a forward itself takes much longer than its compilation
_TIMEOUT_S = 1.0  # that a start may take longer; a guess. The built-in model on two cores takes 0.36 s.

_log = logging.getLogger(__name__)


def rows_of_lengths(example: Row, max_tokens: int) -> list[Row]:
    """Return rows of 16, 32, … tokens up to the model's maximum, made of the ids of ``example``."""
    longest = min(max_tokens, _LONGEST)
    doubled = [_SHORTEST * 2**step for step in range(longest.bit_length())]
    return [_resize(example, length) for length in (*(length for length in doubled if length < longest), longest)]


def warm_up(engine: Engine, method: EngineMethod, rows: list[Row], timeout_s: float = _TIMEOUT_S) -> float:
    """Run the rows one by one on as many threads as the engine runs batches. Return the last one's tokens per second.

    It is 0 where none ran. A forward that fails ends it without an error: the lane's probe decides if the engine works.
    Called on the engine's thread.
    """
    until = time.monotonic() + timeout_s

    def run_rows(_: int) -> float:
        tokens_per_s = 0.0
        for row in rows:
            if (began := time.monotonic()) >= until:
                break
            try:
                getattr(engine, method)([row])
            except Exception as error:  # noqa: BLE001 — a long row that fails must not fail the start
                _log.warning("warm-up stopped at %d tokens: %s", len(row.ids), error)
                break
            tokens_per_s = len(row.ids) / (time.monotonic() - began + 1e-6)
        return tokens_per_s

    info = engine.info
    if not info.compiles_per_shape:
        return 0.0
    if info.max_concurrent_batches == 1:
        return run_rows(0)
    with ThreadPoolExecutor(info.max_concurrent_batches, thread_name_prefix="warm-up") as threads:
        return min(threads.map(run_rows, range(info.max_concurrent_batches)))


def _resize(example: Row, length: int) -> Row:
    positions = [position % len(example.ids) for position in range(length)]
    type_ids = None if example.type_ids is None else [example.type_ids[position] for position in positions]
    return Row([example.ids[position] for position in positions], type_ids, length, 0)
