"""Several jobs of one request, run concurrently and reported as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from nearfar.core.caller import AnswerSize, Caller
from nearfar.core.jobs import Result, Usage

MAX_JOBS = 2048  # of one request
_STARTED_AT_ONCE = 32
_Job = TypeVar("_Job")
_T = TypeVar("_T")
_Part = TypeVar("_Part", bound=Result)


class CombinedResult(Result, Generic[_Part], frozen=True, kw_only=True):
    """The results of several jobs, with their usage together and the timings of the longest."""

    results: tuple[_Part, ...]


def combine(results: Sequence[_Part]) -> CombinedResult[_Part]:
    """Combine the results of at least one job. The description is that of the first's model."""
    return CombinedResult(
        info=results[0].info,
        inputs=sum(done.inputs for done in results),
        usage=Usage(
            tokens=sum(done.usage.tokens for done in results),
            truncated_tokens=sum(done.usage.truncated_tokens for done in results),
        ),
        timings=max((done.timings for done in results), key=lambda timings: timings.total_s),
        results=tuple(results),
    )


async def run_all(
    run: Callable[[_Job, Caller], Coroutine[Any, Any, _T]], jobs: Iterable[_Job], caller: Caller
) -> list[_T]:
    """Run the jobs of one request concurrently. If one fails, the others are cancelled and its error is raised.

    They start a few at a time, so that other requests run in between. Their answers count as one.
    """
    caller = msgspec.structs.replace(caller, answer=AnswerSize())
    tasks: list[asyncio.Task[_T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                tasks.append(group.create_task(run(job, caller)))
                if len(tasks) % _STARTED_AT_ONCE == 0:
                    await asyncio.sleep(0)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
