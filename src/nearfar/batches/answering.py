"""How lines of a batch are answered: again while the server is overloaded, until the batch expires."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec
from msgspec import Struct

from nearfar.batches.lines import InputLine, LineAnswer, LineError, OutputLine
from nearfar.batches.records import StoredBatch
from nearfar.batches.store import new_id
from nearfar.core.caller import LOWEST_PRIORITY, Caller

_FIRST_WAIT_S, _MAX_WAIT_S = 0.1, 30.0
_OVERLOADED, _LATE = 429, {503, 504}
_MAX_LATE = 20  # how often a line is tried that gets a 503 or 504
_FIRST_ERROR = 400
_EXPIRED = LineError("batch_expired", "This request could not be executed before the completion window expired.")
_FATAL = LineError("server_error", "The server ended each time that it answered this request.")


class LineReply(Struct, frozen=True):
    """An answer, and how many tokens the model processed for it."""

    answer: LineAnswer
    tokens: int = 0


AnswerLines: TypeAlias = Callable[[Sequence[InputLine], Caller], Awaitable[list[LineReply]]]


class Answered(Struct, frozen=True):
    """A line, and its answer or why it has none."""

    line: InputLine
    reply: LineReply | None = None
    error: LineError | None = None

    @property
    def is_error(self) -> bool:
        """Return whether it belongs to the error file."""
        return self.reply is None or self.reply.answer.status_code >= _FIRST_ERROR

    @property
    def is_expired(self) -> bool:
        """Return whether the batch expired before."""
        return self.error is _EXPIRED

    def encode(self) -> bytes:
        """Return the line of the output or error file."""
        answer = self.reply.answer if self.reply else None
        return msgspec.json.encode(OutputLine(new_id("batch_req_"), self.line.custom_id, answer, self.error)) + b"\n"


class LineAnswering:
    """Answers the lines of one batch, for its owner, with the lowest priority."""

    def __init__(self, answer: AnswerLines, stored: StoredBatch) -> None:
        self._answer = answer
        self._expires_at = stored.batch.expires_at
        scopes = stored.progress.scopes
        self._caller = Caller(name=stored.owner, scopes=scopes, priority=LOWEST_PRIORITY, is_batch=True)

    async def answer(self, lines: Sequence[InputLine]) -> list[Answered]:
        """Answer lines."""
        replies: list[LineReply | None] = [None] * len(lines)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._expires_at - time.time()):
                await self._retry(lines, replies)
        return [Answered(line, reply, None if reply else _EXPIRED) for line, reply in zip(lines, replies, strict=True)]

    async def refuse(self, lines: Sequence[InputLine]) -> list[Answered]:
        """Return the error of lines that have ended the server several times."""
        return [Answered(line, error=_FATAL) for line in lines]

    async def _retry(self, lines: Sequence[InputLine], replies: list[LineReply | None]) -> None:
        """Set the replies. Lines of which the server has too many are answered in ever smaller parts."""
        waiting, width, wait_s, late = [*range(len(lines))], len(lines), _FIRST_WAIT_S, Counter[int]()
        while True:
            for part in [waiting[at : at + width] for at in range(0, len(waiting), width)]:
                found = await self._answer([lines[at] for at in part], self._caller)
                for at, reply in zip(part, found, strict=True):
                    status = reply.answer.status_code
                    late[at] += status in _LATE
                    if status not in {_OVERLOADED, *_LATE} or late[at] > _MAX_LATE:
                        replies[at] = reply
            waiting = [at for at in waiting if replies[at] is None]
            if not waiting:
                return
            await asyncio.sleep(wait_s)
            width, wait_s = max(width // 2, 1), min(wait_s * 2, _MAX_WAIT_S)
