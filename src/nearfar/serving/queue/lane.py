"""One model's queue and workers. Knows ids, batches and futures; knows no text, no dialect and no HTTP.

The promises: the queue is bounded in tokens; the engine is only ever touched by the lane's own threads, as many at
once as it says; every future is resolved, whatever the engine does; rows of a caller who left never reach the engine.
What is queued when the engine frees up is batched at once; nothing waits for company.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.errors import EngineError, ModelNotReady, ServingError
from nearfar.serving.queue.admission import Admission, QueueLimits
from nearfar.serving.queue.batching import padded_tokens
from nearfar.serving.queue.forward import Forward
from nearfar.serving.queue.liveness import Vitals
from nearfar.serving.queue.scheduler import Budget, Place, Round, Ticket, distinct
from nearfar.serving.queue.thread_boundary import contained
from nearfar.serving.queue.throughput import Pace
from nearfar.serving.queue.watchdog import Stopped, ends, patience_s
from nearfar.telemetry.events import BatchRecord, QueueDepth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nearfar.engines.base import Engine
    from nearfar.models.tokenization.row import Row
    from nearfar.serving.queue.scheduler import Call, Results
    from nearfar.telemetry.events import Observer
    from nearfar.telemetry.stopwatch import Stopwatch

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class LaneLimits(Struct, frozen=True, kw_only=True):
    """``batch_tokens`` bounds a batch (None: as the engine likes), ``queue`` what waits or runs.

    ``forward_s`` is how long one forward may take at least before it counts as hanging.
    """

    batch_tokens: int | None
    queue: QueueLimits
    forward_s: float = 120.0


class Lane:
    """The queue of one engine, of which ``call`` is asked where a request says nothing else.

    ``open`` before the first ``submit``; ``close`` fails whatever still waits. ``died`` is set when the lane stops by
    itself: after a fault, or a forward that hangs, whose thread only ends with the process.
    """

    def __init__(
        self, model: str, call: Call, limits: LaneLimits, observer: Observer, died: asyncio.Event | None = None
    ) -> None:
        self._model = model
        self._call = call
        self.batch_tokens = limits.batch_tokens or 0  # until the engine has opened and says what suits it
        self._pace = Pace()
        self.admission = Admission(model, limits.queue, lambda: self._pace.tokens_per_s * len(self._workers))
        self._forward_s = limits.forward_s
        self._observer = observer
        self._died = died or asyncio.Event()
        self._opener = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"lane-{model}")
        self._threads = self._opener
        self._engine: Engine | None = None
        self._round = Round()
        self._arrived = asyncio.Event()
        self._ran: set[Call] = set()
        self._vitals = Vitals(limits.forward_s)
        self._probing: asyncio.Task[None] | None = None
        self._most_padding: int | None = 0
        self._idle = 1
        self._workers: list[asyncio.Task[None]] = []

    async def open(self, open_engine: Callable[[], Engine], probe: Row) -> Engine:
        """Open the engine on the lane's first thread and let ``probe`` through it; only then is the lane open."""
        self._engine = engine = await self._on_thread(open_engine)
        self._probe = probe
        self.batch_tokens = self.batch_tokens or engine.info.batch_tokens
        self._most_padding = engine.info.max_padding if engine.info.padded else None
        first = Forward(engine, self._call, [probe])
        await self._on_thread(first.run)
        if first.failed:
            raise first.raised or EngineError(f"the first forward of {self._model} gave no answer")
        self._idle = engine.info.max_concurrent_batches
        if self._idle > 1:
            self._threads = ThreadPoolExecutor(max_workers=self._idle, thread_name_prefix=f"lane-{self._model}")
        self._workers = [
            asyncio.create_task(self._work(), name=f"lane {self._model} {number}") for number in range(self._idle)
        ]
        return engine

    async def close(self) -> None:
        """Stop the workers, fail whatever waits, and close the engine on the thread that opened it."""
        tasks = [*self._workers, *([self._probing] if self._probing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers = []
        self._fail_all()
        if self._threads is not self._opener:
            await asyncio.to_thread(self._threads.shutdown)  # batches that still run
        if self._engine:
            self._threads = self._opener
            try:
                await self._on_thread(self._engine.close)
            except Exception:  # noqa: BLE001 — the others must be closed all the same
                _log.exception("the engine of %s could not be closed", self._model)
            self._engine = None
        self._opener.shutdown(wait=False)

    @property
    def is_open(self) -> bool:
        """Tell whether rows that are submitted now will be run."""
        return bool(self._workers) and not any(worker.done() for worker in self._workers)

    def is_well(self) -> bool:
        """Tell whether it has answered since the last request, or a little while ago; ask it where in doubt.

        Then it may be well again the next time, though nobody sends requests to what says that it isn't.
        """
        if self.is_open and self._vitals.is_failing:
            self._ask_probe()
        return self.is_open and self._vitals.are_good(busy=self.admission.requests > 0)

    def depth(self) -> QueueDepth:
        """Count the rows that wait, the tokens that wait or run, and the engine's memory where it can tell."""
        measure = getattr(self._engine, "memory", dict[str, int])
        return QueueDepth(
            model=self._model,
            rows=self._round.rows(),
            tokens=self.admission.tokens,
            requests=self.admission.requests,
            limit=self.admission.limits.tokens,
            memory=measure(),
        )

    async def submit(
        self,
        rows: Sequence[Row],
        call: Call | None = None,
        watch: Stopwatch | None = None,
        caller: Caller = ANONYMOUS,
    ) -> Results:
        """Run the rows and give (B, D) vectors, (B,) or (B, labels) logits, or (B,) objects, in their order.

        Raises Overloaded when the queue has no room, EngineError when the engine failed on any of the rows.
        Cancelling the call drops the rows that haven't run. ``watch`` is told when they came and when they ran.
        """
        if not self.is_open:
            raise ModelNotReady(f"{self._model} has stopped", retry_after_s=1)
        if not rows:
            raise ValueError("no rows were submitted, so nothing would ever answer")
        shares = self._engine is not None and self._engine.info.shares_prefixes
        future = asyncio.get_running_loop().create_future()
        ticket = Ticket(rows, future, call or self._call, watch, shares=shares, caller=caller)
        busy = self.admission.requests > 0
        charge = self.admission.admit(ticket.waiting_tokens, caller)
        try:
            if ticket.waiting_tokens <= self.batch_tokens:
                self._pace.small_came()
            self._vitals.asked(busy=busy)
            self._round.add(ticket)
            self._arrived.set()
            return await ticket.future
        finally:
            self.admission.release(charge, caller)

    async def _work(self) -> None:
        """Run batches for as long as the lane lives."""
        batch: list[Place] = []
        try:
            while True:
                await self._arrived.wait()
                batch = self._round.next_batch(self._budget())
                if batch:
                    self._idle -= 1
                    await self._run(batch)
                    self._idle += 1
                else:
                    self._arrived.clear()
        except Exception as error:  # a fault of this file, or a hang: nobody may be left waiting for it
            known = isinstance(error, Stopped)
            _log.error("the lane of %s has stopped: %s", self._model, error, exc_info=None if known else error)
            self._died.set()
            for place in batch:
                place.ticket.fail(EngineError(f"the engine of {self._model} failed"))
            self._fail_all()
            raise

    def _budget(self) -> Budget:
        full = self.batch_tokens
        bulk = self._pace.bulk_tokens(full)
        return Budget(full=full, bulk=bulk, max_padding=self._most_padding, idle=max(self._idle, 1))

    def _fail_all(self) -> None:
        for ticket in self._round.clear():
            ticket.fail(ModelNotReady(f"{self._model} has stopped", retry_after_s=1))

    async def _run(self, batch: list[Place]) -> None:
        """Run one batch and hand every row, or the failure, to its ticket. Identical rows are computed once."""
        groups = distinct(batch)
        rows = [places[0].row for places in groups]
        started = time.perf_counter()
        forward = await self._forward(rows, batch[0].ticket.call)
        self._record(batch, rows, started, failed=forward.raised is not None)
        self._note(forward, len(rows))
        for at, places in enumerate(groups):
            for place in places:
                if failure := forward.failed.get(at):
                    error = failure.told(place.ticket.first_index(place.index), len(place.row.ids))
                    _log.error("%s: %s", self._model, error)
                    place.ticket.fail(error)
                else:
                    place.ticket.write(place.index, forward.results[at])

    def _note(self, forward: Forward, rows: int) -> None:
        """Note how a batch went. Where no row has an answer, the probe tells whether it is the rows or the engine."""
        self._vitals.ran(answered=len(forward.failed) < rows)
        if forward.raised:
            text = "the engine of %s failed on %d of a batch's %d rows"
            _log.error(text, self._model, len(forward.failed), rows, exc_info=forward.raised)
        if self._vitals.are_lost:
            raise Stopped("its engine has failed on everything for too long")
        if self._vitals.is_failing:
            self._ask_probe()

    def _ask_probe(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._ask(self._probe), name=f"lane {self._model} probing")

    async def _ask(self, probe: Row) -> None:
        with contextlib.suppress(ServingError):  # noted like any other's
            await self.submit([probe])

    async def _forward(self, rows: Sequence[Row], call: Call) -> Forward:
        """Let the rows through the engine, on a thread of the lane."""
        if self._engine is None:
            raise EngineError(f"the engine of {self._model} is closed")
        forward = Forward(self._engine, call, rows)
        running = asyncio.get_running_loop().run_in_executor(self._threads, contained, forward.run)
        tokens, longest = sum(len(row.ids) for row in rows), max(len(row.ids) for row in rows)
        limit_s = patience_s(self._forward_s, tokens, self._pace.tokens_per_s, first=call not in self._ran)
        if not await ends(running, lambda: forward.calls, limit_s):
            what = f"{call} of {len(rows)} rows, the longest of {longest} tokens"
            raise Stopped(f"a forward hangs, {what}: no answer in {limit_s:g} s")
        running.result()
        self._ran.add(call)
        return forward

    def _record(self, batch: list[Place], rows: Sequence[Row], started: float, *, failed: bool) -> None:
        ended = time.perf_counter()
        run_s = ended - started
        lengths = [len(row.ids) for row in rows]
        self._pace.ran(sum(place.ticket.lengths[place.index] for place in batch), run_s)
        tickets = {id(place.ticket): place.ticket for place in batch}
        for ticket in tickets.values():
            ticket.ran(started, ended)
        record = BatchRecord(
            model=self._model,
            rows=len(rows),
            requests=len(tickets),
            tokens=sum(lengths),
            padded_tokens=padded_tokens(lengths),
            run_s=run_s,
            failed=failed,
            watches=tuple(ticket.watch for ticket in tickets.values()),
        )
        self._observer.batch_done(record)

    async def _on_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, contained, call)
