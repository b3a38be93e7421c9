"""How a job holds its model: the one it means, within the deadline, with a watch; and what is noted of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from nearfar.core.caller import ANONYMOUS, Caller
from nearfar.core.errors import DeadlineExceeded, ModelNotReady, WrongTask
from nearfar.serving.registry.fleet import Lease
from nearfar.telemetry.events import JobRecord
from nearfar.telemetry.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from nearfar.core.types import Task
    from nearfar.serving.registry.fleet import Fleet
    from nearfar.telemetry.events import Observer

EMBEDDING: frozenset[Task] = frozenset({"embed", "multi_vector", "sparse"})  # the rest compares or labels texts
ANY: tuple[Task, ...] = ("embed", "rank", "classify")  # whatever the model does


class Holding:
    """Lends models to jobs. The wait for a model and the work with it share one deadline."""

    def __init__(self, fleet: Fleet, observer: Observer, deadline_s: float, caller: Caller = ANONYMOUS) -> None:
        self._fleet = fleet
        self._observer = observer
        self._deadline_s = deadline_s
        self._caller = caller

    def on_behalf_of(self, caller: Caller) -> Holding:
        """Give the same for one caller, who may wait no longer than the server lets anybody."""
        deadline_s = min(self._deadline_s, caller.timeout_s or self._deadline_s)
        return Holding(self._fleet, self._observer, deadline_s, caller)

    def lease(self, name: str | None, tasks: Sequence[Task]) -> AbstractAsyncContextManager[Lease]:
        """Hold a model that does the first of the tasks that it, or where none is named any, does."""
        return self._one(name, tasks[0]) if len(tasks) == 1 else self._first(name, tasks)

    @asynccontextmanager
    async def work(self, name: str | None, tasks: Sequence[Task], inputs: int) -> AsyncIterator[Lease]:
        """Hold a model while so many inputs are worked on, and let the observer hear how that went."""
        lease: Lease | None = None
        failure: type[BaseException] | None = None
        try:
            self._caller.require_scope("embed" if EMBEDDING.issuperset(tasks) else "rerank")
            self._caller.rate_limit.acquire()
            try:
                async with self.lease(name, tasks) as lease:
                    yield lease
            finally:
                self._caller.rate_limit.release()
        except BaseException as error:
            failure = type(error)
            raise
        finally:
            self._observer.job_done(_record(lease, tasks[0], inputs, failure))

    @asynccontextmanager
    async def _one(self, name: str | None, task: Task) -> AsyncIterator[Lease]:
        is_there = False
        try:
            async with asyncio.timeout(self._deadline_s), self._fleet.lease(name, task) as (model, prompt):
                is_there = True
                yield Lease(msgspec.structs.replace(model, watch=Stopwatch(), caller=self._caller), prompt)
        except TimeoutError as error:
            if is_there:
                raise DeadlineExceeded(f"no answer within {self._deadline_s:g} s", retry_after_s=1) from error
            raise ModelNotReady(f"the model wasn't ready within {self._deadline_s:g} s", retry_after_s=1) from error

    @asynccontextmanager
    async def _first(self, name: str | None, tasks: Sequence[Task]) -> AsyncIterator[Lease]:
        async with AsyncExitStack() as held:
            for task in tasks:
                try:
                    lease = await held.enter_async_context(self._one(name, task))
                    break
                except WrongTask:
                    if task == tasks[-1]:
                        raise
            yield lease


def _record(lease: Lease | None, task: Task, inputs: int, failure: type[BaseException] | None) -> JobRecord:
    if lease is None:
        return JobRecord(task=task, inputs=inputs, failure=failure, timings=None)
    model = lease.model
    return JobRecord(
        task=task,
        inputs=inputs,
        failure=failure,
        timings=model.watch.timings(),
        model=model.info.name,
        watch=model.watch,
    )
