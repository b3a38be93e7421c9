"""Runs batches: the threads that take them from the scheduler, their health and report, and their requests' results."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from operator import attrgetter

from nearfar.core.errors import EngineError, ServingError
from nearfar.core.types import EngineMethod
from nearfar.engines.base import Engine
from nearfar.serving.queue.batch import Batch, QueuedRequest
from nearfar.serving.queue.forecast import Forecast
from nearfar.serving.queue.forward import Forward
from nearfar.serving.queue.health import LaneStopped, Liveness, Throughput, hang_timeout_s
from nearfar.serving.queue.scheduler import Scheduler
from nearfar.telemetry.events import ForwardDone, Observer

_log = logging.getLogger(__name__)

# A forward hangs after this many checks in a row without progress. So a process that was stopped for an hour, or a
# machine that slept, counts as one check and not as a forward of an hour.
_HANG_CHECKS = 4
_tokens, _stopwatch = attrgetter("tokens"), attrgetter("stopwatch")


class BatchRunner:
    """Runs the batches of one model on its engine's threads. Measures ``throughput`` and ``liveness``.

    A thread takes the next batch as soon as it is idle, and passes a finished one to the event loop, where its requests
    are resolved. Both callbacks run there: ``on_stop`` when no batch will run any more, ``on_failing`` after each batch
    without a single answer.
    """

    def __init__(  # noqa: PLR0913 — each is another part of the lane
        self,
        model: str,
        engine: Engine,
        scheduler: Scheduler,
        *,
        batch_tokens: int,
        offline_tokens: int,
        observe: Observer,
        timeout_s: float,
        on_stop: Callable[[Exception], None],
        on_failing: Callable[[], None],
    ) -> None:
        self._model = model
        self._engine = engine
        self._scheduler = scheduler
        self._batch_tokens = batch_tokens
        self._offline_tokens = offline_tokens
        self._observe = observe
        self._timeout_s = timeout_s
        self._on_stop = on_stop
        self._on_failing = on_failing
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()  # guards the scheduler and the fields below
        self._threads = engine.info.max_concurrent_batches
        self._running: set[Batch] = set()
        self._is_open = True
        self._called: set[EngineMethod] = set()
        self.throughput = Throughput()
        self.liveness = Liveness(timeout_s)
        self._forecast = Forecast(model, scheduler, self.throughput, self._threads)

    def start(self, threads: Executor) -> None:
        """Start to run batches, as many at once as the engine supports."""
        for _ in range(self._threads):
            threads.submit(self._run_batches)

    def add(self, request: QueuedRequest) -> None:
        """Queue a request. Raises Overloaded for one that can't be answered in time."""
        with self._changed:
            self._forecast.refuse_if_late(request, sum(map(_tokens, self._running)))
            self._scheduler.add(request)
            self._changed.notify()

    def drop(self, request: QueuedRequest) -> None:
        """Forget the rows of a request that wait, once it doesn't need them any more."""
        with self._changed:
            self._scheduler.drop(request)

    def count_rows(self) -> int:
        """Return the number of waiting rows."""
        with self._changed:
            return self._scheduler.count_rows()

    def close(self, waiting: ServingError, running: ServingError) -> None:
        """End the threads after the batches that they run, and fail every request: those that run, and the others."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            errors = [(request, running) for batch in self._running for request in batch.requests()]
            errors += [(request, waiting) for request in self._scheduler.clear()]
        for request, error in errors:
            request.fail(error)

    async def watch(self) -> None:
        """Raise LaneStopped once a forward hangs. Runs until it is cancelled.

        It may take one check longer than the timeout to notice, never less.
        """
        interval_s = self._timeout_s / _HANG_CHECKS
        while True:
            await asyncio.sleep(interval_s)
            with self._changed:
                running = list(self._running)
            for batch in running:
                calls = batch.forward.calls
                batch.silent_s = batch.silent_s + interval_s if calls == batch.calls else 0.0
                batch.calls = calls
                is_first = batch.method not in self._called
                limit_s = hang_timeout_s(
                    self._timeout_s, sum(batch.lengths), self.throughput.tokens_per_s, is_first=is_first
                )
                if batch.silent_s >= limit_s:
                    what = f"{batch.method} of {len(batch.lengths)} rows, the longest of {max(batch.lengths)} tokens"
                    raise LaneStopped(f"a forward hangs, {what}: no result in {limit_s:g} s")

    def _run_batches(self) -> None:
        """Run batches until the lane is closed. Runs on a thread of the engine."""
        while batch := self._next_batch():
            batch.forward.run()
            batch.ended = time.perf_counter()
            with self._changed:
                self._running.discard(batch)
            try:
                self._loop.call_soon_threadsafe(self._finish, batch)
            except RuntimeError:  # the loop is closed
                return

    def _next_batch(self) -> Batch | None:
        """Wait for rows and return the next batch; None once the lane is closed."""
        with self._changed:
            try:
                while self._is_open:
                    bulk_tokens = self.throughput.bulk_tokens(self._batch_tokens)
                    # The same request alone is always divided in the same way, so that its numbers never differ.
                    idle_threads = self._threads - len(self._running)
                    offline_tokens = self._offline_tokens if self.throughput.is_offline else bulk_tokens
                    if rows := self._scheduler.next_batch(bulk_tokens, idle_threads, offline_tokens):
                        batch = Batch(rows, self._engine)
                        self._running.add(batch)
                        if rows[0].request.waiting:
                            self._changed.notify()  # another idle thread runs a part of this request
                        return batch
                    self._changed.wait()
            except Exception as error:  # noqa: BLE001 — an internal error: no request may be left waiting
                self._loop.call_soon_threadsafe(self._on_stop, error)
        return None

    def _finish(self, batch: Batch) -> None:
        """Report one batch and resolve its requests. Runs on the event loop."""
        try:
            self._called.add(batch.method)
            self._record(batch)
            self._check_health(batch.forward, len(batch.groups))
            self._resolve(batch)
            with self._changed:
                late = self._forecast.find_late()
            for request, error in late:
                request.fail(error)
            if self.liveness.is_failing:
                self._on_failing()
        except Exception as error:  # noqa: BLE001 — an internal error: no request may be left waiting
            for request in batch.requests():
                request.fail(EngineError(f"the engine of {self._model} failed"))
            self._on_stop(error)

    def _resolve(self, batch: Batch) -> None:
        """Resolve the requests of each row with its result or error."""
        failures, results = batch.forward.failures, batch.forward.results
        for at, group in enumerate(batch.groups):
            failure = failures.get(at)
            for queued in group:
                request = queued.request
                if failure:
                    error = failure.error_for(request.row_indices.index(queued.index), len(queued.row.ids))
                    _log.error("model %s: %s", self._model, error)
                    request.fail(error)
                else:
                    request.set_result(queued.index, results[at])

    def _check_health(self, forward: Forward, rows: int) -> None:
        """Record whether any row was answered. Raises LaneStopped once none was for too long."""
        self.liveness.record_batch(answered=len(forward.failures) < rows)
        if forward.raised:
            message = "model %s: the engine failed on %d of a batch's %d rows"
            _log.error(message, self._model, len(forward.failures), rows, exc_info=forward.raised)
        if self.liveness.has_failed:
            raise LaneStopped("its engine has failed on everything for too long")

    def _record(self, batch: Batch) -> None:
        """Record the batch's throughput, report it, and stop its requests' stopwatches."""
        stopwatches = tuple(map(_stopwatch, batch.requests()))
        for stopwatch in stopwatches:
            stopwatch.record_forward(batch.started, batch.ended)
        duration_s = batch.ended - batch.started
        self.throughput.record_batch(batch.tokens, duration_s, self._batch_tokens)
        lengths = batch.lengths
        self._observe(
            ForwardDone(
                model=self._model,
                rows=len(lengths),
                requests=len(stopwatches),
                tokens=sum(lengths),
                padded_tokens=len(lengths) * max(lengths),
                duration_s=duration_s,
                failed=batch.forward.raised is not None,
                stopwatches=stopwatches,
            )
        )
