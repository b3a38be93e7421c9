"""Runs the jobs of a batch's lines together: one job of many texts costs less, and fills forwards better."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from nearfar.core.caller import Caller
from nearfar.core.errors import EngineError, RequestError
from nearfar.core.jobs import Embedded, EmbedJob, Usage

Embed: TypeAlias = Callable[[EmbedJob, Caller], Coroutine[Any, Any, Embedded]]


class _Part(Struct, frozen=True, eq=False):
    """One job, and the future of its result."""

    job: EmbedJob
    done: asyncio.Future[Embedded]


class JobMerging:
    """Runs those EmbedJobs by ``embed`` as one that have the same caller and options, and begin together."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._parts: dict[tuple[EmbedJob, Caller], list[_Part]] = {}  # by the job without its inputs
        self._tasks: set[asyncio.Task[None]] = set()

    async def embed(self, job: EmbedJob, caller: Caller) -> Embedded:
        """Compute a vector for each text. Raises as ``embed`` does for this job alone."""
        if job.late_chunking:
            return await self._embed(job, caller)
        loop = asyncio.get_running_loop()
        part = _Part(job, loop.create_future())
        key = (replace(job, inputs=()), caller)
        if key not in self._parts:
            self._parts[key] = []
            loop.call_soon(self._start, key)  # after the other jobs that begin in this turn of the event loop
        self._parts[key].append(part)
        return await part.done

    def _start(self, key: tuple[EmbedJob, Caller]) -> None:
        parts = self._parts.pop(key)
        task = asyncio.create_task(self._run(parts, key[1]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def cancel_if_unused(done: asyncio.Future[Embedded]) -> None:
            if done.cancelled() and all(part.done.cancelled() for part in parts):
                task.cancel()

        for part in parts:
            part.done.add_done_callback(cancel_if_unused)

    async def _run(self, parts: Sequence[_Part], caller: Caller) -> None:
        """Run the jobs as one; each alone if that fails for what may be the fault of one."""
        inputs = tuple(chain.from_iterable(part.job.inputs for part in parts))
        try:
            whole = await self._embed(replace(parts[0].job, inputs=inputs), caller)
        except (RequestError, EngineError) as error:
            if len(parts) == 1:
                _set_error(parts[0], error)
            else:
                await asyncio.gather(*(self._run([part], caller) for part in parts))
        except Exception as error:  # noqa: BLE001 — every job's caller gets it
            for part in parts:
                _set_error(part, error)
        else:
            start = 0
            for part in parts:
                stop = start + len(part.job.inputs)
                if not part.done.done():
                    part.done.set_result(_slice(whole, start, stop))
                start = stop


def _slice(whole: Embedded, start: int, stop: int) -> Embedded:
    each = whole.usage.each[start:stop]
    usage = Usage(tokens=sum(one for one, _ in each), truncated_tokens=sum(cut for _, cut in each), each=each)
    return replace(whole, inputs=stop - start, vectors=whole.vectors[start:stop], usage=usage)


def _set_error(part: _Part, error: Exception) -> None:
    if not part.done.done():
        part.done.set_exception(error)
