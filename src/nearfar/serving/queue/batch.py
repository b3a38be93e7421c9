"""A queued request, its rows, and the batch in which rows of several requests run together. No queue."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.errors import ServingError
from nearfar.core.types import EngineMethod, FloatArray, Representation
from nearfar.engines.base import Engine
from nearfar.engines.common.prefixes import token_costs
from nearfar.models.tokenization.row import Row, row_ids
from nearfar.serving.queue.forward import Forward
from nearfar.telemetry.stopwatch import Stopwatch

_row, _tokens, _request = attrgetter("row"), attrgetter("tokens"), attrgetter("request")
Results = npt.NDArray[Any]  # (B, D) or (B,) float32, or (B,) objects


class QueuedRequest:
    """One request in the queue: its rows, and the array that collects their results.

    A row that occurs several times, as the same object, runs once, so that equal texts get bit-identical answers.
    ``tokens`` is what each row costs the engine; where it ``shares_prefixes``, a prefix that rows share costs once.
    """

    def __init__(  # noqa: PLR0913 — each is a property of one request
        self,
        rows: Sequence[Row],
        future: asyncio.Future[Results],
        method: EngineMethod = "embed",
        stopwatch: Stopwatch | None = None,
        *,
        shares_prefixes: bool = False,
        caller: Caller = ANONYMOUS,
    ) -> None:
        self.method = method
        self.future = future
        self.caller = caller.name
        self.is_batch = caller.is_batch
        self.token_weight = caller.token_weight
        self.stopwatch = stopwatch or Stopwatch()
        self.stopwatch.record_queued()
        distinct = dict(zip(map(id, rows), rows, strict=True))
        self.rows = [*distinct.values()]
        # Of each row, its index among the distinct ones. A list for each row would take the garbage collector 0.1 s.
        index_of = dict(zip(distinct, range(len(distinct)), strict=True))
        self.row_indices = [*map(index_of.__getitem__, map(id, rows))]
        self.tokens = token_costs(self.rows) if shares_prefixes else [*map(len, map(row_ids, self.rows))]
        # In order of length, as the scheduler chooses among the first ones: neighbors fill a batch with little padding.
        self.waiting = deque(sorted(range(len(self.rows)), key=self.tokens.__getitem__))
        self.waiting_tokens = self.total_tokens = sum(self.tokens)
        self.order = 0.0  # among the requests of its caller
        self._missing = len(self.rows)
        self._results: Results | None = None

    def set_result(self, row: int, result: FloatArray | Representation) -> None:
        """Store a distinct row's result; the last one resolves the future."""
        if self._results is None:
            if isinstance(result, Representation) or self.method == "hidden_states":
                self._results = np.empty(len(self.rows), dtype=object)  # rows differ in shape
            else:
                self._results = np.empty((len(self.rows), *np.shape(result)), dtype=np.float32)
        self._results[row] = result
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result(self._results)

    def repeat_results(self, distinct: Results) -> Results:
        """Return a result for each row of the request, from those of its distinct rows."""
        return distinct[self.row_indices]

    def is_finished(self) -> bool:
        """Return whether no row waits, or the request doesn't need them any more."""
        return not self.waiting or self.future.done()

    def record_cancelled(self) -> None:
        """Record in the stopwatch how many rows have run."""
        self.stopwatch.record_cancelled(len(self.rows) - self._missing, len(self.rows))

    def fail(self, error: ServingError) -> None:
        """Answer with an error instead, unless the request was answered or cancelled."""
        if not self.future.done():
            self.future.set_exception(error)


class QueuedRow(Struct, frozen=True):
    """One distinct row of a request, by its index in ``request.rows``, and the tokens that it costs."""

    request: QueuedRequest
    index: int
    row: Row
    tokens: int


class Batch:
    """One batch that runs. Identical rows run once."""

    def __init__(self, rows: list[QueuedRow], engine: Engine) -> None:
        self.rows = rows
        self.tokens = sum(map(_tokens, rows))
        self.method: EngineMethod = rows[0].request.method
        if len(rows) == 1:
            self.groups, distinct = [rows], [rows[0].row]
        else:
            self.groups = [[rows[at] for at in group] for group in group_duplicates([*map(_row, rows)])]
            distinct = [group[0].row for group in self.groups]
        self.lengths = [*map(len, map(row_ids, distinct))]
        self.forward = Forward(engine, self.method, distinct)
        self.started = time.perf_counter()
        self.ended = 0.0
        self.silent_s = 0.0  # without progress
        self.calls = 0  # of the engine, when they were last looked at

    def requests(self) -> list[QueuedRequest]:
        """Return the requests that have rows in the batch."""
        return list(dict.fromkeys(map(_request, self.rows)))


def group_duplicates(rows: Sequence[Row]) -> list[list[int]]:
    """Group the indices of rows that are identical input: one of each group runs for all of them."""
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        type_ids = None if row.type_ids is None else tuple(row.type_ids)
        positions = None if row.vector_positions is None else tuple(row.vector_positions)
        groups.setdefault((tuple(row.ids), type_ids, row.unattended, row.unpooled, positions), []).append(index)
    return list(groups.values())
