"""Warm-up: forwards of common lengths before a model is ready. They show how fast it is, before its first request."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from nearfar.core.types import EngineMethod
from nearfar.engines.base import Engine
from nearfar.models.tokenization.row import Row

_SHORTEST, _LONGEST = 16, 512  # beyond, a forward itself takes much longer than its compilation

_log = logging.getLogger(__name__)


def rows_of_lengths(example: Row, max_tokens: int) -> list[Row]:
    """Return rows of 16, 32, … tokens up to the model's maximum, made of the ids of ``example``."""
    longest = min(max_tokens, _LONGEST)
    doubled = [_SHORTEST * 2**step for step in range(longest.bit_length())]
    return [_resize(example, length) for length in (*(length for length in doubled if length < longest), longest)]


def warm_up(engine: Engine, method: EngineMethod, rows: list[Row]) -> float:
    """Run the rows one by one on as many threads as the engine runs batches. Return the most tokens per second.

    The first row isn't measured, since it may load or compile what all forwards need; 0 if no other ran. A forward that
    fails ends it without an error: the lane's probe decides if the engine works. Called on the engine's thread.
    """
    info = engine.info

    def run_rows(_: int) -> float:
        tokens_per_s, until = 0.0, 0.0
        for row in rows:
            began = time.monotonic()
            if until and began >= until:
                break
            try:
                getattr(engine, method)([row])
            except Exception as error:  # noqa: BLE001 — a long row that fails must not fail the start
                _log.warning("warm-up stopped at %d tokens: %s", len(row.ids), error)
                break
            ended = time.monotonic()
            if until:
                tokens_per_s = max(tokens_per_s, len(row.ids) / (ended - began + 1e-6))
            until = until or ended + info.warm_up_s
        return tokens_per_s

    if not info.warm_up_s:
        return 0.0
    if info.max_concurrent_batches == 1:
        return run_rows(0)
    with ThreadPoolExecutor(info.max_concurrent_batches, thread_name_prefix="warm-up") as threads:
        return min(threads.map(run_rows, range(info.max_concurrent_batches)))


def _resize(example: Row, length: int) -> Row:
    positions = [position % len(example.ids) for position in range(length)]
    type_ids = None if example.type_ids is None else [example.type_ids[position] for position in positions]
    return Row([example.ids[position] for position in positions], type_ids, length, 0)
