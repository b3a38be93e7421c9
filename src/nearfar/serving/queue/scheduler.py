"""Scheduler: which of the waiting rows run in the next batch. No clock, no threads, no engine.

A request's rows run in as many batches as it takes, and one future answers for all of them. The next batch belongs to
the next request of the caller that had the fewest tokens: its first row decides the length, and rows of similar length
from the other requests fill the batch.

A request that fills a batch on its own is bulk. Small requests don't wait for bulk rows in the same batch, and bulk has
a separate token budget, which shrinks while small requests arrive so that the next one is served soon.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from nearfar.serving.queue.batch import QueuedRequest, QueuedRow
from nearfar.serving.queue.fair_queue import FairQueue

_WINDOW_ROWS = 256  # waiting rows, and requests, that are considered for a batch: untuned; choosing takes about 0.1 ms


class Scheduler:
    """The waiting requests of one lane.

    ``batch_tokens`` bounds a batch, ``max_padding`` the padding in it (None: the engine doesn't pad).
    """

    def __init__(self, batch_tokens: int, max_padding: int | None) -> None:
        self._batch_tokens = batch_tokens
        self._max_padding = max_padding
        self._queue = FairQueue()
        self.add = self._queue.add
        self.drop = self._queue.drop
        self.count_tokens = self._queue.count_tokens
        self.tokens_before = self._queue.tokens_before
        self.find_late = self._queue.find_late
        self.clear = self._queue.clear

    def count_rows(self) -> int:
        """Return the number of waiting rows."""
        return sum(len(request.waiting) for request in self._queue)

    def next_batch(self, bulk_tokens: int, idle_workers: int = 1, offline_tokens: int | None = None) -> list[QueuedRow]:
        """Remove and return the rows that run next; none when no row waits.

        ``bulk_tokens`` bounds a batch of a bulk request, and ``offline_tokens`` that of one that no client waits for.
        What waits is divided among the ``idle_workers``, so that all of them start together: only before the first
        batch of a request, so that its other ones don't depend on time.
        """
        requests = self._queue.next(_WINDOW_ROWS)
        if not requests:
            return []
        first, limit = requests[0], self._batch_tokens
        is_bulk = first.waiting_tokens > limit
        most = (offline_tokens or bulk_tokens) if first.is_batch else bulk_tokens
        batch = self._choose_rows(
            [one for one in requests if one.method == first.method and (is_bulk or one.waiting_tokens <= limit)],
            most if is_bulk else limit,
            idle_workers if first.waiting_tokens == first.total_tokens else 1,
        )
        self._queue.begin(first)
        for queued in batch:
            queued.request.waiting.remove(queued.index)
            self._queue.charge(queued.request, queued.tokens)
        return batch

    def _choose_rows(self, requests: list[QueuedRequest], limit: int, idle_workers: int) -> list[QueuedRow]:
        """Return the first request's first row, with as many rows of similar length as the limit allows."""
        window: list[QueuedRow] = []
        lengths: list[int] = []
        for request in requests:
            for index in islice(request.waiting, _WINDOW_ROWS - len(window)):
                lengths.append(request.tokens[index])
                window.append(QueuedRow(request, index, request.rows[index], lengths[-1]))
            if len(window) == _WINDOW_ROWS:
                break
        if len(window) == 1:
            return window
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
