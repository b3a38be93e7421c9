"""The lines of batches, answered by the routes that answer requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import msgspec
from litestar import Request, Response
from litestar.types import HTTPScope
from msgspec import Struct

from nearfar.batches.answering import LineReply
from nearfar.batches.lines import InputLine, LineAnswer
from nearfar.core.caller import Caller
from nearfar.core.errors import InputError
from nearfar.core.jobs import EmbedJob
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.body.receive import ALWAYS_DECODED
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import Binary, encode_built
from nearfar.dialects.kit.request import AnyRequest, ServerParts, new_request_id, request_id
from nearfar.http.routes import JobRoute, refuse
from nearfar.serving.merging import Outcome

_HEADERS = [(b"content-type", b"application/json")]
_HEADERS_BY_NAME = dict(_HEADERS)


class _EmbedLine(Struct, frozen=True):
    """A line that embeds texts, and what answers it."""

    line: InputLine
    dialect: Dialect
    endpoint: Endpoint[Any, Any, Any]
    body: Any
    job: EmbedJob


class LineRoutes:
    """Answers lines as the routes of their paths answer requests, without a connection, a key and a log line."""

    def __init__(self, routes: Iterable[JobRoute], server: ServerParts) -> None:
        self._routes = {route.path: route for route in routes}
        self._server = server

    async def answer(self, lines: Sequence[InputLine], caller: Caller) -> list[LineReply]:
        """Answer lines, those that embed texts together. An error of a request, or of the server, is an answer too."""
        parsed = await asyncio.to_thread(lambda: [*map(self._parse, lines)])
        merged = [one for one in parsed if one]
        alone = [line for line, one in zip(lines, parsed, strict=True) if not one]
        replies, others = await asyncio.gather(
            self._embed(merged, caller), asyncio.gather(*[self._answer_alone(line, caller) for line in alone])
        )
        found = {False: iter(others), True: iter(replies)}
        return [next(found[one is not None]) for one in parsed]

    def _parse(self, line: InputLine) -> _EmbedLine | None:
        """Return a line that can be answered with others; None for one of another kind, of any size, or with faults."""
        if len(bytes(line.body)) > ALWAYS_DECODED:
            return None
        try:
            dialect, route = self._routes[line.url].choose(self._server.fleet, bytes(line.body))
            if not route.embeds or route.endpoint is None:
                return None
            return _EmbedLine(line, dialect, route.endpoint, *route.endpoint.parse(bytes(line.body)))
        except Exception:  # noqa: BLE001 — the route answers with the error
            return None

    async def _embed(self, lines: Sequence[_EmbedLine], caller: Caller) -> list[LineReply]:
        if not lines:
            return []
        done = await self._server.service.embed_merged([one.job for one in lines], caller)
        return await asyncio.to_thread(lambda: [*map(partial(self._render, caller), lines, done)])

    def _render(self, caller: Caller, one: _EmbedLine, done: Outcome) -> LineReply:
        if isinstance(done, Exception):
            return self._refuse(caller, one, done)
        try:
            encoded = encode_built(done.vectors.size, partial(one.endpoint.reply, one.body, one.job, done))
        except Exception as error:  # noqa: BLE001 — the dialect converts it, and logs what is unexpected
            return self._refuse(caller, one, error)
        if isinstance(encoded, Binary):
            return self._refuse(caller, one, InputError("a line of a batch has no binary answer", "encoding_format"))
        return LineReply(LineAnswer(200, new_request_id(), msgspec.Raw(encoded)), done.usage.tokens)

    def _refuse(self, caller: Caller, one: _EmbedLine, error: Exception) -> LineReply:
        request = self._request(one.line, caller)
        return _reply(request, refuse(one.dialect, request, error))

    async def _answer_alone(self, line: InputLine, caller: Caller) -> LineReply:
        request = self._request(line, caller)
        _, response = await self._routes[line.url].answer(request)
        return _reply(request, response)

    def _request(self, line: InputLine, caller: Caller) -> AnyRequest:
        body = bytes(line.body)
        state: dict[str, Any] = {"server": self._server, "headers": _HEADERS_BY_NAME, "caller": caller}
        if len(body) <= ALWAYS_DECODED:
            state["body"] = body
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": line.url, "http_version": "1.1"}
        scope |= {"scheme": "http", "query_string": b"", "headers": _HEADERS, "state": state}
        unread = [body]

        async def receive() -> Any:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await asyncio.Future()  # the caller never disconnects

        return Request(cast("HTTPScope", scope), receive)


def _reply(request: AnyRequest, response: Response[bytes]) -> LineReply:
    answer = LineAnswer(response.status_code or 200, request_id(request.scope), msgspec.Raw(response.content))
    return LineReply(answer, request.scope["state"].get("done", {}).get("tokens", 0))
