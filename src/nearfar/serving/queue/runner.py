"""Runs batches: one forward on the engine's threads, its health, its report, and the results of its requests."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor

from nearfar.core.types import EngineMethod
from nearfar.engines.base import Engine
from nearfar.serving.queue.forward import Forward
from nearfar.serving.queue.health import LaneStopped, Liveness, Throughput, hang_timeout_s, wait_for_progress
from nearfar.serving.queue.scheduler import QueuedRow, group_duplicates
from nearfar.telemetry.events import ForwardDone, Observer
from nearfar.telemetry.stopwatch import Stopwatch

_log = logging.getLogger(__name__)


class BatchRunner:
    """Runs the batches of one model, as many at once as it is called. Measures ``throughput`` and ``liveness``."""

    def __init__(self, model: str, engine: Engine, threads: Executor, observe: Observer, timeout_s: float) -> None:
        self._model = model
        self._engine = engine
        self._threads = threads
        self._observe = observe
        self._timeout_s = timeout_s
        self._called: set[EngineMethod] = set()
        self.throughput = Throughput()
        self.liveness = Liveness(timeout_s)

    async def run(self, batch: list[QueuedRow]) -> None:
        """Run one batch and resolve its requests. Identical rows run once.

        Raises LaneStopped where the forward hangs, or the engine has failed on everything for too long.
        """
        groups = group_duplicates(batch)
        rows = [group[0].row for group in groups]
        lengths = [len(row.ids) for row in rows]
        method = batch[0].request.method
        forward = Forward(self._engine, method, rows)
        timeout_s = hang_timeout_s(
            self._timeout_s,
            sum(lengths),
            self.throughput.tokens_per_s,
            is_first=method not in self._called,
        )
        started = time.perf_counter()
        running = asyncio.get_running_loop().run_in_executor(self._threads, forward.run)
        if not await wait_for_progress(running, forward, timeout_s):
            what = f"{method} of {len(rows)} rows, the longest of {max(lengths)} tokens"
            raise LaneStopped(f"a forward hangs, {what}: no result in {timeout_s:g} s")
        running.result()
        self._called.add(method)
        self._record(batch, lengths, started, failed=forward.raised is not None)
        self._check_health(forward, len(rows))
        self._resolve(groups, forward)

    def _resolve(self, groups: list[list[QueuedRow]], forward: Forward) -> None:
        """Resolve the requests of each row with its result or error."""
        for at, group in enumerate(groups):
            failure = forward.failures.get(at)
            for queued in group:
                request = queued.request
                if failure:
                    error = failure.error_for(request.indices[queued.index][0], len(queued.row.ids))
                    _log.error("model %s: %s", self._model, error)
                    request.fail(error)
                else:
                    request.set_result(queued.index, forward.results[at])

    def _check_health(self, forward: Forward, rows: int) -> None:
        """Record whether any row was answered. Raises LaneStopped once none was for too long."""
        self.liveness.record_batch(answered=len(forward.failures) < rows)
        if forward.raised:
            message = "model %s: the engine failed on %d of a batch's %d rows"
            _log.error(message, self._model, len(forward.failures), rows, exc_info=forward.raised)
        if self.liveness.has_failed:
            raise LaneStopped("its engine has failed on everything for too long")

    def _record(self, batch: list[QueuedRow], lengths: list[int], started: float, *, failed: bool) -> None:
        """Record the batch's throughput, report it, and stop its requests' stopwatches."""
        ended = time.perf_counter()
        tokens = 0
        stopwatches: dict[int, Stopwatch] = {}
        for queued in batch:
            tokens += queued.tokens
            stopwatches[id(queued.request)] = queued.request.stopwatch
        for stopwatch in stopwatches.values():
            stopwatch.record_forward(started, ended)
        self.throughput.record_batch(tokens, ended - started)
        event = ForwardDone(
            model=self._model,
            rows=len(lengths),
            requests=len(stopwatches),
            tokens=sum(lengths),
            padded_tokens=len(lengths) * max(lengths),
            duration_s=ended - started,
            failed=failed,
            stopwatches=tuple(stopwatches.values()),
        )
        self._observe(event)
