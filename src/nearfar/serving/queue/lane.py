"""Lane: one open model's queue, worker tasks and engine threads. Token ids only: no text, no dialect, no HTTP.

The queue is bounded. Only the lane's own threads call the engine, as many at once as it supports. Every future is
resolved, whatever the engine does. Rows of a cancelled request never reach the engine. Whatever waits when a worker
becomes idle is batched at once: a batch never waits for more requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.errors import EngineError, ModelNotReady, Overloaded, ServingError
from nearfar.core.types import EngineMethod
from nearfar.engines.base import Engine
from nearfar.models.tokenization.row import Row
from nearfar.serving.offload import offload
from nearfar.serving.queue.admission import Admission, QueueLimits
from nearfar.serving.queue.batch import QueuedRequest, Results
from nearfar.serving.queue.forward import Forward, contained
from nearfar.serving.queue.health import LaneStopped
from nearfar.serving.queue.runner import BatchRunner
from nearfar.serving.queue.scheduler import Scheduler
from nearfar.telemetry.events import Observer, QueueDepth
from nearfar.telemetry.stopwatch import Stopwatch

_log = logging.getLogger(__name__)


class LaneSettings(Struct, frozen=True, kw_only=True):
    """How one model is served."""

    # Its name, for errors and logs.
    model: str
    # The engine's method that a request calls by default.
    method: EngineMethod
    queue: QueueLimits
    # The most tokens in a batch; None: as the engine prefers.
    batch_tokens: int | None = None
    # The shortest time without progress after which a forward counts as hanging.
    forward_timeout_s: float = 120.0


class OpenEngine(Struct, frozen=True):
    """An engine, the thread that opened it, and a row that it has answered."""

    engine: Engine
    thread: ThreadPoolExecutor
    probe: Row


async def open_lane(
    settings: LaneSettings,
    open_engine: Callable[[], Engine],
    probe: Row,
    observe: Observer,
    stopped: asyncio.Event | None = None,
) -> Lane:
    """Open an engine on a new thread, run the probe, and return the lane that serves it.

    ``stopped`` is set when the lane stops on its own: after an internal error, or a forward that hangs, which only ends
    with the process. Raises what ``open_engine`` raises, and EngineError where the probe has no result.
    """
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"lane-{settings.model}")
    try:
        engine = await loop.run_in_executor(thread, contained, open_engine)
        try:
            await loop.run_in_executor(thread, contained, lambda: _check(engine, settings, probe))
        except BaseException:
            await _close_engine(engine, thread, settings.model)
            raise
    except BaseException:
        thread.shutdown(wait=False)
        raise
    return Lane(settings, OpenEngine(engine, thread, probe), observe, stopped or asyncio.Event())


def _check(engine: Engine, settings: LaneSettings, probe: Row) -> None:
    """Raise EngineError where the engine has no valid result for the probe."""
    first = Forward(engine, settings.method, [probe])
    first.run()
    if first.failures:
        raise EngineError(f"the first forward of {settings.model} failed") from first.raised


class Lane:
    """Serves one open engine until ``close``. Made by ``open_lane``."""

    def __init__(self, settings: LaneSettings, opened: OpenEngine, observe: Observer, stopped: asyncio.Event) -> None:
        self._model, self._method = settings.model, settings.method
        self._engine, self._opener, self._probe = opened.engine, opened.thread, opened.probe
        self._stopped = stopped
        self.engine_info = info = self._engine.info
        self.batch_tokens = settings.batch_tokens or info.batch_tokens
        self.admission = Admission(
            self._model, settings.queue, lambda: self.throughput.tokens_per_s * info.max_concurrent_batches
        )
        self._runner = BatchRunner(
            self._model,
            self._engine,
            Scheduler(self.batch_tokens, info.max_padding if info.padded else None),
            batch_tokens=self.batch_tokens,
            offline_tokens=settings.batch_tokens or info.offline_tokens or info.batch_tokens,
            observe=observe,
            timeout_s=settings.forward_timeout_s,
            on_stop=self._stop,
            on_failing=self._start_probe,  # finds out whether the rows or the engine are bad
        )
        # Its first value may be what was measured at the start.
        self.throughput, self._liveness = self._runner.throughput, self._runner.liveness
        # Whether submitted rows will run.
        self.is_open = True
        count = info.max_concurrent_batches
        self._threads = self._opener
        if count > 1:
            self._threads = ThreadPoolExecutor(count, thread_name_prefix=f"lane-{self._model}")
        self._runner.start(self._threads)
        self._watching = asyncio.create_task(self._watch(), name=f"lane {self._model} watch")
        self._probing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def close(self) -> None:
        """End the threads, fail what waits, and close the engine on the thread that opened it. May be called twice."""
        self.is_open = False
        if self._is_closed:
            return
        self._is_closed = True
        tasks = [self._watching, *([self._probing] if self._probing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._runner.close(self._stopped_error(), self._stopped_error())
        if self._threads is not self._opener:
            await asyncio.to_thread(self._threads.shutdown)  # waits for batches that still run
        await _close_engine(self._engine, self._opener, self._model)
        self._opener.shutdown(wait=False)

    def is_healthy(self) -> bool:
        """Return whether the lane has answered since the last request, or recently.

        While it fails on every row, this runs the probe, so that it can recover although no requests arrive.
        """
        if self.is_open and self._liveness.is_failing:
            self._start_probe()
        return self.is_open and self._liveness.is_healthy(busy=self.admission.requests > 0)

    def depth(self) -> QueueDepth:
        """Return the sizes of the queue, and the engine's memory where the engine measures it."""
        measure_memory = getattr(self._engine, "memory", dict[str, int])
        return QueueDepth(
            model=self._model,
            rows=self._runner.count_rows(),
            tokens=self.admission.tokens,
            requests=self.admission.requests,
            limit=self.admission.limits.tokens,
            memory=measure_memory(),
        )

    async def submit(
        self,
        rows: Sequence[Row],
        method: EngineMethod | None = None,
        stopwatch: Stopwatch | None = None,
        caller: Caller = ANONYMOUS,
    ) -> Results:
        """Run the rows and return their results in order: (B, D), (B,) or (B, labels) float32, or (B,) objects.

        Raises Overloaded when the queue is full or the answer would be late, EngineError when the engine failed on any
        of the rows, ModelNotReady when the lane has stopped. Cancelling it drops the rows that haven't run.
        """
        if not self.is_open:
            raise self._stopped_error()
        if not rows:
            raise ValueError("no rows were submitted, so nothing would ever answer")
        future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        shares = self.engine_info.shares_prefixes
        request = QueuedRequest(rows, future, method or self._method, stopwatch, shares_prefixes=shares, caller=caller)
        charge = self.admission.admit(request.waiting_tokens, caller)
        try:
            if not caller.is_batch:
                self.throughput.record_request(is_small=request.waiting_tokens <= self.batch_tokens)
            self._liveness.record_request(busy=self.admission.requests > 1)
            self._runner.add(request)
            try:
                distinct = await future
            finally:
                if request.waiting:  # it was cancelled, or has failed
                    self._runner.drop(request)
        except asyncio.CancelledError:
            request.record_cancelled()
            raise
        except Overloaded as error:
            error.capacity = self.admission.capacity()
            raise
        finally:
            self.admission.release(charge, caller)
        if len(request.rows) == len(rows):
            return distinct
        return await offload(distinct[:1].size * len(rows), lambda: request.repeat_results(distinct))

    async def _watch(self) -> None:
        """Stop the lane once a forward hangs."""
        try:
            await self._runner.watch()
        except LaneStopped as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        """Stop after an internal error, or when the engine will not answer any more. No request is left waiting."""
        expected = isinstance(error, LaneStopped)
        _log.error("model %s stopped: %s", self._model, error, exc_info=None if expected else error)
        self.is_open = False
        self._runner.close(self._stopped_error(), EngineError(f"the engine of {self._model} failed"))
        self._stopped.set()

    def _stopped_error(self) -> ModelNotReady:
        return ModelNotReady(f"{self._model} has stopped", retry_after_s=1)

    def _start_probe(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._run_probe(), name=f"lane {self._model} probing")

    async def _run_probe(self) -> None:
        with contextlib.suppress(ServingError):  # recorded like that of any request
            await self.submit([self._probe])


async def _close_engine(engine: Engine, thread: ThreadPoolExecutor, model: str) -> None:
    try:
        await asyncio.get_running_loop().run_in_executor(thread, contained, engine.close)
    except Exception:  # noqa: BLE001 — other models must be closed all the same
        _log.exception("model %s: the engine could not be closed", model)
