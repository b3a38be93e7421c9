"""One model's queue and worker. Knows ids, batches and futures; knows no text, no dialect and no HTTP.

A request is a ticket: its rows wait, travel in as many batches as it takes, and one future answers for all
of them. The promises: the queue is bounded in tokens; the engine is only ever touched by the lane's one
thread; every future is resolved, whatever the engine does; rows of a caller who left never reach the engine.

What is queued when the engine frees up is batched at once; nothing waits for company. Each turn belongs to
the next ticket in the round: its first row decides which lengths run, and rows of like length from the other
tickets fill the batch. So a short request passes a long one, and no ticket waits longer than a round.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from msgspec import Struct

from nearfar.errors import EngineFailed, NotReady, Overloaded, ServingError
from nearfar.serving.batching import padded_tokens, plan
from nearfar.serving.border import contained
from nearfar.serving.observe import BatchRecord, QueueDepth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nearfar.engines import Engine
    from nearfar.models.tokens import Row
    from nearfar.serving.observe import Observer
    from nearfar.types import FloatArray

_WINDOW_ROWS = 512  # how many waiting rows, and tickets, are looked at to fill a batch: a guess; it takes 0.6 ms
_MAX_RETRY_AFTER_S = 60  # clients stop retrying altogether when told much longer

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class LaneLimits(Struct, frozen=True, kw_only=True):
    """``batch_tokens`` bounds a padded batch (None: as the engine likes), ``queue_tokens`` what waits or runs."""

    batch_tokens: int | None
    queue_tokens: int


class _Ticket:
    """One request's rows, and the array their results are written to as they come."""

    def __init__(self, rows: Sequence[Row], future: asyncio.Future[FloatArray]) -> None:
        self.rows = rows
        self.waiting = deque(range(len(rows)))
        self.missing = len(rows)
        self.results: FloatArray | None = None
        self.future = future

    @property
    def spent(self) -> bool:
        """Tell whether none of its rows will run any more: all have, or nobody waits for them."""
        return not self.waiting or self.future.done()


class _Place(Struct, frozen=True):
    """One row of a ticket."""

    ticket: _Ticket
    index: int

    @property
    def row(self) -> Row:
        return self.ticket.rows[self.index]


class Lane:
    """The queue of one engine. ``open`` before the first ``submit``; ``close`` fails whatever still waits."""

    def __init__(self, model: str, task: Literal["embed", "score"], limits: LaneLimits, observer: Observer) -> None:
        self._model = model
        self._task = task
        self._batch_tokens = limits.batch_tokens or 0  # until the engine has opened and says what suits it
        self._queue_tokens = limits.queue_tokens
        self._observer = observer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"lane-{model}")
        self._engine: Engine | None = None
        self._round: deque[_Ticket] = deque()
        self._arrived = asyncio.Event()
        self._tokens = 0
        self._tokens_per_s = 0.0
        self._worker: asyncio.Task[None] | None = None

    async def open(self, open_engine: Callable[[], Engine], probe: Row) -> Engine:
        """Open the engine on the lane's thread and let ``probe`` through it; only then is the lane open."""
        self._engine = engine = await self._on_thread(open_engine)
        self._batch_tokens = self._batch_tokens or engine.info.batch_tokens
        _, broken = await self._on_thread(lambda: self._forward([probe]))
        if broken[0]:
            raise EngineFailed(f"the first forward of {self._model} gave no finite answer")
        self._worker = asyncio.create_task(self._work(), name=f"lane {self._model}")
        return engine

    async def close(self) -> None:
        """Stop the worker, fail whatever waits, and close the engine on its own thread."""
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._worker = None
        self._fail_all()
        if self._engine:
            try:
                await self._on_thread(self._engine.close)
            except Exception:  # noqa: BLE001 — the others must be closed all the same
                _log.exception("the engine of %s could not be closed", self._model)
            self._engine = None
        self._thread.shutdown(wait=False)

    @property
    def is_open(self) -> bool:
        """Tell whether rows that are submitted now will be run."""
        return self._worker is not None and not self._worker.done()

    def depth(self) -> QueueDepth:
        """Count the rows that wait, and the tokens that wait or run."""
        return QueueDepth(
            model=self._model, rows=sum(len(ticket.waiting) for ticket in self._round), tokens=self._tokens
        )

    async def submit(self, rows: Sequence[Row]) -> FloatArray:
        """Run the rows and give (B, D) vectors, or (B,) logits, in their order.

        Raises Overloaded when the queue has no room, EngineFailed when the engine failed on any of the rows.
        Cancelling the call drops the rows that haven't run.
        """
        if not self.is_open:
            raise NotReady(f"{self._model} has stopped", retry_after_s=1)
        if not rows:
            raise ValueError("no rows were submitted, so nothing would ever answer")
        # A job larger than half of the queue is charged half: the others are interleaved with it, not shut out.
        tokens = min(sum(len(row.ids) for row in rows), self._queue_tokens // 2)
        if self._tokens + tokens > self._queue_tokens:
            raise Overloaded(f"the queue of {self._model} is full", retry_after_s=self._retry_after_s())
        ticket = _Ticket(rows, asyncio.get_running_loop().create_future())
        self._tokens += tokens
        self._round.append(ticket)
        self._arrived.set()
        try:
            return await ticket.future
        finally:
            self._tokens -= tokens

    def _retry_after_s(self) -> int:
        """Estimate how long the queue takes to empty, from what the last batches did."""
        return min(max(math.ceil(self._tokens / (self._tokens_per_s or self._tokens)), 1), _MAX_RETRY_AFTER_S)

    async def _work(self) -> None:
        """Run batches for as long as the lane lives."""
        try:
            while True:
                await self._arrived.wait()
                batch = self._next_batch()
                if batch:
                    await self._run(batch)
                else:
                    self._arrived.clear()
        except Exception:  # a fault of this file: nobody may be left waiting for it
            _log.exception("the lane of %s has stopped", self._model)
            self._fail_all()
            raise

    def _fail_all(self) -> None:
        for ticket in self._round:
            _fail(ticket, NotReady(f"{self._model} has stopped", retry_after_s=1))
        self._round.clear()

    def _next_batch(self) -> list[_Place]:
        """Take from the queue the rows that run next."""
        while self._round and self._round[0].spent:
            self._round.popleft()
        tickets = [ticket for ticket in islice(self._round, _WINDOW_ROWS) if not ticket.spent]
        if not tickets:
            return []
        share = max(_WINDOW_ROWS // len(tickets), 1)
        window = [_Place(ticket, index) for ticket in tickets for index in islice(ticket.waiting, share)]
        groups = plan([len(place.row.ids) for place in window], self._batch_tokens)
        chosen = [window[at] for at in next(group for group in groups if 0 in group)]  # 0: the turn's first row
        self._round.rotate(-1)
        for place in chosen:
            place.ticket.waiting.remove(place.index)
        return chosen

    async def _run(self, batch: list[_Place]) -> None:
        """Run one batch and hand every row, or the failure, to its ticket."""
        rows = [place.row for place in batch]
        started = time.perf_counter()
        try:
            results, broken = await self._on_thread(lambda: self._forward(rows))
        except Exception as error:  # noqa: BLE001 — whatever an engine raises, its callers must hear of it
            _log.exception("the engine of %s failed on a batch of %d rows", self._model, len(rows))
            self._record(batch, time.perf_counter() - started, failed=True)
            for place in batch:
                _fail(place.ticket, EngineFailed(f"the engine of {self._model} failed"), cause=error)
            return
        self._record(batch, time.perf_counter() - started, failed=False)
        for place, result, is_broken in zip(batch, results, broken, strict=True):
            if is_broken:
                _log.error("the engine of %s gave no finite, non-zero answer for a row", self._model)
                _fail(place.ticket, EngineFailed(f"the model gave no finite answer for text {place.index}"))
            else:
                _deliver(place, result)

    def _forward(self, rows: Sequence[Row]) -> tuple[FloatArray, list[bool]]:
        """Call the engine, check the shape of its answer, and tell which rows are none; on the lane's thread."""
        if self._engine is None:
            raise EngineFailed(f"the engine of {self._model} is closed")
        given = self._engine.embed(rows) if self._task == "embed" else self._engine.score(rows)
        results: FloatArray = np.asarray(given, dtype=np.float32)
        expected = (len(rows), self._engine.info.dim) if self._task == "embed" else (len(rows),)
        if results.shape != expected:
            raise EngineFailed(f"the engine gave {results.shape} where {expected} was due")
        return results, _broken(results)

    def _record(self, batch: list[_Place], run_s: float, *, failed: bool) -> None:
        lengths = [len(place.row.ids) for place in batch]
        rate = sum(lengths) / max(run_s, 1e-6)
        self._tokens_per_s = 0.8 * self._tokens_per_s + 0.2 * rate if self._tokens_per_s else rate
        record = BatchRecord(
            model=self._model,
            rows=len(batch),
            requests=len({id(place.ticket) for place in batch}),
            tokens=sum(lengths),
            padded_tokens=padded_tokens(lengths),
            run_s=run_s,
            failed=failed,
        )
        self._observer.batch_done(record)

    async def _on_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, contained, call)


def _broken(results: FloatArray) -> list[bool]:
    """Tell which rows are not an answer: something infinite or not a number, or a vector of zeros."""
    rows = results.reshape(len(results), -1)  # (B,) → (B, 1)
    broken = ~np.isfinite(rows).all(axis=1)
    if results.ndim > 1:
        broken |= ~rows.any(axis=1)
    flags: list[bool] = np.asarray(broken).tolist()
    return flags


def _deliver(place: _Place, result: FloatArray) -> None:
    ticket = place.ticket
    if ticket.results is None:
        ticket.results = np.empty((len(ticket.rows), *result.shape), dtype=np.float32)
    ticket.results[place.index] = result
    ticket.missing -= 1
    if not ticket.missing and not ticket.future.done():
        ticket.future.set_result(ticket.results)


def _fail(ticket: _Ticket, error: ServingError, cause: Exception | None = None) -> None:
    if not ticket.future.done():
        error.__cause__ = cause
        ticket.future.set_exception(error)
