"""Runs the jobs of a batch's lines together: one job of many texts costs less, and fills forwards better."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, TypeAlias

from msgspec.structs import replace

from nearfar.core.errors import DeviceOutOfMemory, EngineError, InputError
from nearfar.core.jobs import Embedded, EmbedJob, Usage

Outcome: TypeAlias = Embedded | Exception
_Embed: TypeAlias = Callable[[EmbedJob], Coroutine[Any, Any, Embedded]]
# Texts of one job: so many vectors are in memory at once, and so many texts OpenAI allows in a request.
_MAX_INPUTS = 2048


async def embed_merged(embed: _Embed, jobs: Sequence[EmbedJob]) -> list[Outcome]:
    """Run jobs by ``embed``, those with the same options as one. Return the result of each, or its error."""
    groups = _group(jobs)
    parts = await asyncio.gather(*[_run(embed, [jobs[at] for at in group]) for group in groups])
    found = dict(zip(chain.from_iterable(groups), chain.from_iterable(parts), strict=True))
    return [found[at] for at in range(len(jobs))]


def _group(jobs: Sequence[EmbedJob]) -> list[list[int]]:
    """Return the indices of the jobs that run as one."""
    groups: list[list[int]] = []
    open_groups: dict[EmbedJob, tuple[list[int], int]] = {}  # by the job without its inputs, with their number
    for at, job in enumerate(jobs):
        options = replace(job, inputs=())
        group, inputs = open_groups.get(options, ([], 0))
        if not group or job.late_chunking or inputs + len(job.inputs) > _MAX_INPUTS:
            groups.append(group := [])
            inputs = 0
        group.append(at)
        open_groups[options] = group, inputs + len(job.inputs)
    return groups


async def _run(embed: _Embed, jobs: Sequence[EmbedJob]) -> list[Outcome]:
    """Run the jobs as one; in halves if that fails for what may be the fault of one of them."""
    try:
        whole = await embed(replace(jobs[0], inputs=tuple(chain.from_iterable(job.inputs for job in jobs))))
    except (InputError, EngineError, DeviceOutOfMemory) as error:
        if len(jobs) == 1:
            return [error]
        half = len(jobs) // 2
        return await _run(embed, jobs[:half]) + await _run(embed, jobs[half:])
    except Exception as error:  # noqa: BLE001 — every job's caller gets it
        return [error] * len(jobs)
    return [_slice(whole, *part) for part in pairwise(accumulate([len(job.inputs) for job in jobs], initial=0))]


def _slice(whole: Embedded, start: int, stop: int) -> Embedded:
    each = whole.usage.each[start:stop]
    usage = Usage(tokens=sum([one for one, _ in each]), truncated_tokens=sum([cut for _, cut in each]), each=each)
    return replace(whole, inputs=stop - start, vectors=whole.vectors[start:stop], usage=usage)
