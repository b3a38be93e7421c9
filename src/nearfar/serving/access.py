"""Model access: leases the model of a request within its timeout, checks the caller and reports the outcome.

No dialect, no HTTP, no tokenization.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from nearfar.core.caller import Caller
from nearfar.core.errors import DeadlineExceeded, ModelNotReady, Overloaded
from nearfar.serving.registry.opening import Model
from nearfar.telemetry.events import JobRecord
from nearfar.telemetry.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nearfar.core.types import EngineMethod, Task
    from nearfar.models.tokenization.row import Row
    from nearfar.serving.queue.scheduler import Results
    from nearfar.serving.registry.fleet import Fleet
    from nearfar.telemetry.events import Observer

EMBEDDING: frozenset[Task] = frozenset({"embed", "multi_vector", "sparse"})  # all others need the scope "rerank"
ANY_TASK: tuple[Task, ...] = ("embed", "rank", "classify")


class RequestContext(Struct, frozen=True, kw_only=True):
    """State of one request. Made once, when its model is leased; nothing shared is copied for it."""

    caller: Caller
    # Seconds for the wait and the work together.
    timeout_s: float
    stopwatch: Stopwatch
    model: Model
    # The prompt that came with the model's name, as in "model:prompt".
    prompt_name: str | None

    async def submit(self, rows: Sequence[Row], method: EngineMethod | None = None) -> Results:
        """Run the rows in the model's lane. Returns and raises what ``Lane.submit`` does.

        Raises Overloaded as well when the caller has no tokens left.
        """
        tokens = sum(len(row.ids) for row in rows)
        self.caller.rate_limit.spend(tokens)
        try:
            return await self.model.lane.submit(rows, method, self.stopwatch, self.caller)
        except Overloaded:
            self.caller.rate_limit.refund(tokens)
            raise


class ModelAccess:
    """Leases models to requests."""

    def __init__(self, fleet: Fleet, observer: Observer, timeout_s: float) -> None:
        self._fleet = fleet
        self._observer = observer
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def acquire(self, caller: Caller, name: str | None, tasks: tuple[Task, ...]) -> AsyncIterator[RequestContext]:
        """Lease the model of this name, or the default one, for the first of ``tasks`` that it supports.

        Raises DeadlineExceeded, or ModelNotReady where the model isn't loaded in time, and what ``Fleet.lease`` does.
        """
        timeout_s = min(self._timeout_s, caller.timeout_s or self._timeout_s)
        stopwatch: Stopwatch | None = None
        try:
            async with asyncio.timeout(timeout_s), self._fleet.lease(name, tasks) as (model, prompt_name):
                stopwatch = Stopwatch()
                yield RequestContext(
                    caller=caller, timeout_s=timeout_s, stopwatch=stopwatch, model=model, prompt_name=prompt_name
                )
        except TimeoutError as error:
            if stopwatch:
                raise DeadlineExceeded(f"no answer within {timeout_s:g} s", retry_after_s=1) from error
            raise ModelNotReady(f"the model wasn't ready within {timeout_s:g} s", retry_after_s=1) from error

    @asynccontextmanager
    async def run_job(
        self, caller: Caller, name: str | None, tasks: tuple[Task, ...], inputs: int
    ) -> AsyncIterator[RequestContext]:
        """Acquire a model for a job with this number of inputs, and report how the job ended.

        Raises Forbidden or Overloaded where the caller may not do this, or not now.
        """
        context: RequestContext | None = None
        failure: type[BaseException] | None = None
        try:
            caller.require_scope("embed" if EMBEDDING.issuperset(tasks) else "rerank")
            caller.rate_limit.acquire()
            try:
                async with self.acquire(caller, name, tasks) as context:
                    yield context
            finally:
                caller.rate_limit.release()
        except BaseException as error:
            failure = type(error)
            raise
        finally:
            self._observer.job_done(_record(context, tasks[0], inputs, failure))


def _record(context: RequestContext | None, task: Task, inputs: int, failure: type[BaseException] | None) -> JobRecord:
    if context is None:
        return JobRecord(task=task, inputs=inputs, failure=failure, timings=None)
    return JobRecord(
        task=task,
        inputs=inputs,
        failure=failure,
        timings=context.stopwatch.timings(),
        model=context.model.info.name,
        watch=context.stopwatch,
    )
