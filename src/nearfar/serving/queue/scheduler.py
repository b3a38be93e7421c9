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
from collections.abc import Iterator, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.errors import ServingError
from nearfar.core.types import EngineMethod, FloatArray, Representation
from nearfar.engines.common.prefixes import token_costs
from nearfar.models.tokenization.row import Row
from nearfar.serving.queue.batching import group_by_length
from nearfar.telemetry.stopwatch import Stopwatch

Results = npt.NDArray[Any]  # (B, D) or (B,) float32, or (B,) objects

_WINDOW_ROWS = 256  # waiting rows, and requests, that are considered for a batch: untuned; choosing takes about 0.1 ms


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
        self.token_weight = caller.token_weight if caller.priority else 1.0
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
        if self._results.dtype == object:
            for index in self.indices[row]:
                self._results[index] = result
        else:
            self._results[self.indices[row]] = result
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


class FairQueue:
    """Requests that wait, by caller. Every caller gets the same share of the tokens that run.

    Start-time fair queueing. Each caller has a virtual time, the tokens that ran for it, and the caller with the lowest
    is next. A caller that arrives, or returns, starts at the lowest virtual time of those that wait, so idling earns no
    credit. The requests of one caller take turns. A request is finished once no row of it waits or its future is done.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[QueuedRequest]] = {}
        self._virtual_time: dict[str, float] = {}

    def add(self, request: QueuedRequest) -> None:
        """Append a request to its caller's."""
        caller = request.caller
        if caller not in self._waiting:
            lowest = min(map(self._virtual_time.__getitem__, self._waiting), default=0.0)
            self._virtual_time[caller] = max(self._virtual_time.get(caller, 0.0), lowest)
            self._waiting[caller] = deque()
        self._waiting[caller].append(request)

    def next(self, limit: int) -> list[QueuedRequest]:
        """Return up to ``limit`` unfinished requests: first the one that runs next, then round-robin by caller."""
        for caller, requests in list(self._waiting.items()):
            while requests and (not requests[0].waiting or requests[0].future.done()):
                requests.popleft()
            if not requests:
                del self._waiting[caller]
        if not self._waiting:
            self._virtual_time.clear()
            return []
        callers = sorted(self._waiting, key=self._virtual_time.__getitem__)
        queues = [islice(self._waiting[caller], limit) for caller in callers]
        found: list[QueuedRequest] = []
        for request in chain.from_iterable(zip_longest(*queues)):
            if request is not None and request.waiting and not request.future.done():
                found.append(request)
                if len(found) == limit:
                    break
        return found

    def rotate(self, request: QueuedRequest) -> None:
        """Move the request that ran behind the others of its caller."""
        requests = self._waiting[request.caller]
        if requests[0] is request:  # finished requests before it are dropped by the next ``next``
            requests.rotate(-1)

    def charge(self, request: QueuedRequest, tokens: float) -> None:
        """Charge the caller for tokens that run; those of a less urgent request cost more."""
        self._virtual_time[request.caller] += tokens * request.token_weight

    def clear(self) -> list[QueuedRequest]:
        """Remove and return all requests."""
        requests = list(self)
        self._waiting.clear()
        self._virtual_time.clear()
        return requests

    def __iter__(self) -> Iterator[QueuedRequest]:
        return chain.from_iterable(self._waiting.values())


class Scheduler:
    """The waiting requests of one lane.

    ``batch_tokens`` bounds a batch, ``max_padding`` the padding in it (None: the engine doesn't pad).
    """

    def __init__(self, batch_tokens: int, max_padding: int | None) -> None:
        self._batch_tokens = batch_tokens
        self._max_padding = max_padding
        self._queue: FairQueue = FairQueue()

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
        if len(window) == 1:
            return window
        if idle_workers > 1:
            limit = min(limit, -(-sum(lengths) // idle_workers))
        for group in group_by_length(lengths, limit, self._max_padding):
            if 0 in group:
                return [window[at] for at in group]
        return []
