"""Forwards of usual lengths before a model is ready, for engines that plan each length when they first meet it."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from nearfar.engines.base import Engine
    from nearfar.serving.queue.scheduler import Call

_SHORTEST, _LONGEST = 16, 512  # beyond, a forward itself takes much longer than its plan
_MOST_S = 1.0  # that a start may take longer; a guess. The built-in model on two cores takes 0.36 s.

_log = logging.getLogger(__name__)


def rows_of_lengths(example: Row, max_tokens: int) -> list[Row]:
    """Make rows of 16, 32, … tokens and of the most that the model takes, of what ``example`` is made of."""
    longest = min(max_tokens, _LONGEST)
    doubled = [_SHORTEST * 2**step for step in range(longest.bit_length())]
    return [_cut(example, length) for length in (*(length for length in doubled if length < longest), longest)]


def warmed(engine: Engine, call: Call, rows: list[Row], most_s: float = _MOST_S) -> Engine:
    """Run the rows one by one, as many times at once as the engine runs batches, and give the engine.

    A forward that fails ends it: whether the engine answers is for others to find out. Called on the engine's thread.
    """
    until = time.monotonic() + most_s

    def through(_: int) -> None:
        for row in rows:
            if time.monotonic() >= until:
                return
            try:
                getattr(engine, call)([row])
            except Exception as error:  # noqa: BLE001 — a start mustn't end where a long text alone would
                _log.warning("no warm-up beyond %d tokens: %s", len(row.ids), error)
                return

    if not engine.info.compiles_per_shape:
        return engine
    if engine.info.max_concurrent_batches == 1:
        through(0)
        return engine
    with ThreadPoolExecutor(engine.info.max_concurrent_batches, thread_name_prefix="warming") as threads:
        list(threads.map(through, range(engine.info.max_concurrent_batches)))
    return engine


def _cut(example: Row, length: int) -> Row:
    places = [place % len(example.ids) for place in range(length)]
    types = None if example.type_ids is None else [example.type_ids[place] for place in places]
    return Row([example.ids[place] for place in places], types, length, 0)
