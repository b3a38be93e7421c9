"""The models that a command runs, and the one that it opens in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
import numpy as np
from msgspec import Struct

from nearfar.core.caller import Caller
from nearfar.core.errors import EngineError, RequestError
from nearfar.core.jobs import EmbedJob, ScoreJob, TokenizeJob
from nearfar.core.settings import OnOverflow, Settings
from nearfar.core.types import FloatArray, ModelInfo
from nearfar.serving.service import Service

Texts = tuple[str, ...]  # of one row
_CALLER = Caller(is_batch=True)
_NO_LIMIT = 1 << 40
_WEEK_S = 7 * 86_400.0


class Computed(Struct, frozen=True):
    """The numbers of some rows: (B, D) float32, NaN where a row has none, and what is known of each."""

    vectors: FloatArray
    tokens: int = 0
    cut: Sequence[bool] = ()  # whether a text was cut
    faults: dict[int, str] = {}  # of rows without numbers


class Model(Protocol):
    """Computes a vector, or a score, for each row."""

    identity: dict[str, object]  # what its numbers depend on
    int8_range: float | None  # of its vectors

    async def run(self, rows: Sequence[Texts]) -> Computed:
        """Compute the rows' numbers. Raises RequestError and EngineError for one that can't be computed."""

    async def compute(self, rows: Sequence[Texts]) -> Computed:
        """Compute the rows' numbers, without those of rows that ``run`` raises for. Raises its other errors."""

    async def split(self, text: str, size: int, /) -> list[tuple[int, int]]:
        """Return where the chunks of so many tokens begin and end, in characters. Raises SetupError."""


def without_timeout(settings: Settings) -> Settings:
    """Return the settings for work that may wait in the queue for as long as it takes."""
    return msgspec.structs.replace(settings, request_timeout_s=_WEEK_S, queue_tokens=_NO_LIMIT)


def unlimited(settings: Settings) -> Settings:
    """Return the settings without the limits that protect a server from its clients.

    Whether a row runs on a model for single rows depends on time, and results must not.
    """
    return msgspec.structs.replace(
        without_timeout(settings),
        single_row_models=False,
        max_inputs=_NO_LIMIT,
        max_answer_bytes=_NO_LIMIT,
        max_unread_bytes=_NO_LIMIT,
    )


class LocalModel:
    """A model of this process. A block is one job alone in the queue: its numbers are the same each time."""

    def __init__(self, service: Service, info: ModelInfo, *, prompt: str | None, dimensions: int | None) -> None:
        self._service = service
        # What is cut is known of each row, and refusing a row would run the others again.
        self._job = EmbedJob(model=info.name, inputs=(), prompt=prompt, dimensions=dimensions, on_overflow="truncate")
        self._name = info.name
        self.identity: dict[str, object] = {
            "model": [info.name, info.source, info.revision, info.engine, info.dtype],
            "prompt": prompt,
            "dimensions": dimensions,
        }
        self.int8_range: float | None = None
        self.on_overflow: OnOverflow = "truncate"  # of pairs, of which it isn't known which were cut

    async def compute(self, rows: Sequence[Texts]) -> Computed:
        """Compute the rows' numbers, without those of rows that can't be computed."""
        return await isolate(self.run, rows)

    async def run(self, rows: Sequence[Texts]) -> Computed:
        """Compute vectors for rows of one text, scores for rows of two."""
        if len(rows[0]) > 1:
            pairs = tuple((first, second) for first, second in rows)
            job = ScoreJob(model=self._name, pairs=pairs, on_overflow=self.on_overflow)
            scored = await self._service.score(job, _CALLER)
            vectors, usage = np.array(scored.scores, np.float32)[:, None], scored.usage
        else:
            inputs = tuple(text for (text,) in rows)
            done = await self._service.embed(msgspec.structs.replace(self._job, inputs=inputs), _CALLER)
            vectors, usage, self.int8_range = done.vectors, done.usage, done.int8_range
        cut = [truncated > 0 for _, truncated in usage.each] if len(usage.each) == len(rows) else [False] * len(rows)
        return Computed(vectors, usage.tokens, cut)

    async def split(self, text: str, size: int, /) -> list[tuple[int, int]]:
        """Return the chunks of a text, by the model's own tokens."""
        done = await self._service.tokenize(TokenizeJob(model=self._name, texts=(text,), special=False), _CALLER)
        spans = done.texts[0].tokens
        stops = [spans[at].start for at in range(size, len(spans), size)]
        return list(zip([0, *stops], [*stops, len(text)], strict=True))


async def isolate(run: Callable[[Sequence[Texts]], Awaitable[Computed]], rows: Sequence[Texts]) -> Computed:
    """Run the rows. If one of them is refused, run halves of them, so that only that one has no numbers."""
    try:
        return await run(rows)
    except (RequestError, EngineError) as error:
        if len(rows) == 1:
            return Computed(np.full((1, 0), np.nan, np.float32), 0, [False], {0: str(error)})
    middle = len(rows) // 2
    parts = [await isolate(run, rows[:middle]), await isolate(run, rows[middle:])]
    return join(parts, [middle, len(rows) - middle])


def join(parts: Sequence[Computed], counts: Sequence[int]) -> Computed:
    """Join the numbers of consecutive rows."""
    width = max(part.vectors.shape[1] for part in parts)
    faults: dict[int, str] = {}
    start = 0
    for part, count in zip(parts, counts, strict=True):
        faults |= {start + at: why for at, why in part.faults.items()}
        start += count
    vectors = [
        part.vectors if part.vectors.shape[1] == width else np.full((len(part.vectors), width), np.nan, np.float32)
        for part in parts
    ]
    cut = [is_cut for part in parts for is_cut in part.cut]
    return Computed(np.concatenate(vectors), sum(part.tokens for part in parts), cut, faults)
