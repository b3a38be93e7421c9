"""How one line of a batch is answered: again while the server is overloaded, until the batch expires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
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


AnswerLine: TypeAlias = Callable[[str, bytes, Caller], Awaitable[LineReply]]  # of a path and a body


class Answered(Struct, frozen=True):
    """A line of an output or error file, and what is counted of it."""

    data: bytes
    is_error: bool
    tokens: int = 0
    is_expired: bool = False


class LineAnswering:
    """Answers the lines of one batch, for its owner, with the lowest priority."""

    def __init__(self, answer: AnswerLine, stored: StoredBatch) -> None:
        self._answer = answer
        self._expires_at = stored.batch.expires_at
        scopes = stored.progress.scopes
        self._caller = Caller(name=stored.owner, scopes=scopes, priority=LOWEST_PRIORITY, is_batch=True)

    async def answer(self, line: InputLine) -> Answered:
        """Answer a line."""
        try:
            async with asyncio.timeout(self._expires_at - time.time()):
                reply = await self._retry(line)
        except TimeoutError:
            return _encode(line, error=_EXPIRED, is_expired=True)
        return _encode(line, reply.answer, tokens=reply.tokens)

    async def refuse(self, line: InputLine) -> Answered:
        """Return the error of a line that has ended the server several times."""
        return _encode(line, error=_FATAL)

    async def _retry(self, line: InputLine) -> LineReply:
        wait_s, late = _FIRST_WAIT_S, 0
        while True:
            reply = await self._answer(line.url, bytes(line.body), self._caller)
            late += reply.answer.status_code in _LATE
            if reply.answer.status_code not in {_OVERLOADED, *_LATE} or late > _MAX_LATE:
                return reply
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _MAX_WAIT_S)


def _encode(
    line: InputLine,
    answer: LineAnswer | None = None,
    *,
    error: LineError | None = None,
    tokens: int = 0,
    is_expired: bool = False,
) -> Answered:
    data = msgspec.json.encode(OutputLine(new_id("batch_req_"), line.custom_id, answer, error)) + b"\n"
    is_error = answer is None or answer.status_code >= _FIRST_ERROR
    return Answered(data, is_error, tokens, is_expired)
