"""Several jobs of one request, run concurrently and reported as one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

from nearfar.core.jobs import Result, Usage

_T = TypeVar("_T")
_Part = TypeVar("_Part", bound=Result)


class Batch(Result, Generic[_Part], frozen=True, kw_only=True):
    """The results of several jobs, with their usage together and the timings of the longest."""

    results: tuple[_Part, ...]


def combine(results: Sequence[_Part]) -> Batch[_Part]:
    """Combine the results of at least one job. The description is that of the first's model."""
    return Batch(
        info=results[0].info,
        inputs=sum(done.inputs for done in results),
        usage=Usage(
            tokens=sum(done.usage.tokens for done in results),
            truncated_tokens=sum(done.usage.truncated_tokens for done in results),
        ),
        timings=max((done.timings for done in results), key=lambda timings: timings.total_s),
        results=tuple(results),
    )


async def run_all(works: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Run coroutines concurrently. If one fails, the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
