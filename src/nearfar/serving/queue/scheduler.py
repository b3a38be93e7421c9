"""Scheduler: which of the waiting rows run in the next batch. No clock, no threads, no engine.

A request's rows run in as many batches as it takes, and one future answers for all of them. The next batch belongs to
the next request of the caller that had the fewest tokens: its first row decides the length, and rows of similar length
from the other requests fill the batch. So a short request overtakes a long one, and no request of a caller waits longer
than one round of that caller's requests.

A request that fills a batch on its own is bulk. Small requests don't wait for bulk rows in the same batch, and bulk has
a separate token budget, which shrinks while small requests arrive so that the next one is served soon.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.errors import ServingError
from nearfar.core.types import EngineMethod, FloatArray, Representation
from nearfar.engines.common.prefixes import token_costs
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.fair_queue import FairQueue
from nearfar.telemetry.stopwatch import Stopwatch

Results = npt.NDArray[Any]  # (B, D) or (B,) float32, or (B,) objects

_WINDOW_ROWS = 256  # waiting rows, and requests, that are considered for a batch: a guess; it takes 0.1 ms


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
        self.token_weight = caller.token_weight
        self.stopwatch = stopwatch or Stopwatch()
        self.stopwatch.record_queued()
        indices: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            indices.setdefault(id(row), []).append(index)
        self.indices = list(indices.values())  # of each distinct row, where it stands in the request
        self.rows = [rows[places[0]] for places in self.indices]
        self.tokens = token_costs(self.rows) if shares_prefixes else [len(row.ids) for row in self.rows]
        self.waiting = deque(range(len(self.rows)))
        self.waiting_tokens = sum(self.tokens)
        self._missing = len(self.rows)
        self._count = len(rows)
        self._results: Results | None = None

    def set_result(self, row: int, result: FloatArray | Representation) -> None:
        """Store a row's result wherever the request has that row; the last one resolves the future."""
        if self._results is None:
            if isinstance(result, Representation) or self.method == "hidden_states":
                self._results = np.empty(self._count, dtype=object)  # rows differ in shape
            else:
                self._results = np.empty((self._count, *np.shape(result)), dtype=np.float32)
        for index in self.indices[row]:
            self._results[index] = result
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result(self._results)

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


class Scheduler:
    """The waiting requests of one lane.

    ``batch_tokens`` bounds a batch, ``max_padding`` the padding in it (None: the engine doesn't pad).
    """

    def __init__(self, batch_tokens: int, max_padding: int | None) -> None:
        self._batch_tokens = batch_tokens
        self._max_padding = max_padding
        self._queue: FairQueue[QueuedRequest] = FairQueue()

    def add(self, request: QueuedRequest) -> None:
        """Queue a request behind the others of its caller."""
        self._queue.add(request)

    def count_rows(self) -> int:
        """Return the number of waiting rows."""
        return sum(len(request.waiting) for request in self._queue)

    def clear(self) -> list[QueuedRequest]:
        """Remove and return all requests."""
        return self._queue.clear()

    def next_batch(self, bulk_tokens: int, idle_workers: int = 1) -> list[QueuedRow]:
        """Remove and return the rows that run next; none when no row waits.

        ``bulk_tokens`` bounds a batch of a bulk request. What waits is divided among the ``idle_workers``, so that all
        of them start together.
        """
        requests = self._queue.next(_WINDOW_ROWS)
        if not requests:
            return []
        first, limit = requests[0], self._batch_tokens
        is_bulk = first.waiting_tokens > limit
        batch = self._choose_rows(
            [one for one in requests if one.method == first.method and (is_bulk or one.waiting_tokens <= limit)],
            bulk_tokens if is_bulk else limit,
            idle_workers,
        )
        self._queue.rotate(first)
        for queued in batch:
            request = queued.request
            request.waiting.remove(queued.index)
            request.waiting_tokens -= queued.tokens
            self._queue.charge(request, queued.tokens)
        return batch

    def _choose_rows(self, requests: list[QueuedRequest], limit: int, idle_workers: int) -> list[QueuedRow]:
        """Return the first request's first row, with as many rows of similar length as the limit allows."""
        share = max(_WINDOW_ROWS // len(requests), 1)
        window: list[QueuedRow] = []
        lengths: list[int] = []
        for request in requests:
            for index in islice(request.waiting, share):
                lengths.append(request.tokens[index])
                window.append(QueuedRow(request, index, request.rows[index], lengths[-1]))
        if idle_workers > 1:
            limit = min(limit, -(-sum(lengths) // idle_workers))
        for group in group_by_length(lengths, limit, self._max_padding):
            if 0 in group:
                return [window[at] for at in group]
        return []


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


def group_duplicates(batch: Sequence[QueuedRow]) -> list[list[QueuedRow]]:
    """Group the rows of a batch that are identical input: one of each group runs for all of them."""
    groups: dict[object, list[QueuedRow]] = {}
    for queued in batch:
        row = queued.row
        type_ids = None if row.type_ids is None else tuple(row.type_ids)
        positions = None if row.vector_positions is None else tuple(row.vector_positions)
        groups.setdefault((tuple(row.ids), type_ids, row.unattended, positions), []).append(queued)
    return list(groups.values())
