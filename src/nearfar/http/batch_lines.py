"""The lines of batches, answered by the routes that answer requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import msgspec
from litestar import Request
from litestar.types import HTTPScope

from nearfar.batches.answering import LineReply
from nearfar.batches.lines import LineAnswer
from nearfar.core.caller import Caller
from nearfar.dialects.kit.body.receive import ALWAYS_DECODED
from nearfar.dialects.kit.request import ServerParts, request_id
from nearfar.http.routes import JobRoute

_HEADERS = [(b"content-type", b"application/json")]
_HEADERS_BY_NAME = dict(_HEADERS)


class LineRoutes:
    """Answers lines as the routes of these paths answer requests, without a connection, a key and a log line."""

    def __init__(self, routes: Iterable[JobRoute], server: ServerParts) -> None:
        self._routes = {route.path: route for route in routes}
        self._server = server

    async def answer(self, path: str, body: bytes, caller: Caller) -> LineReply:
        """Answer one line. An error of the request, or of the server, is an answer too."""
        state: dict[str, Any] = {"server": self._server, "headers": _HEADERS_BY_NAME, "caller": caller}
        if len(body) <= ALWAYS_DECODED:
            state["body"] = body
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "http_version": "1.1", "state": state}
        scope |= {"scheme": "http", "query_string": b"", "headers": _HEADERS}
        unread = [body]

        async def receive() -> Any:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await asyncio.Future()  # the caller never disconnects

        request: Request[Any, Any, Any] = Request(cast("HTTPScope", scope), receive)
        _, response = await self._routes[path].answer(request)
        answer = LineAnswer(response.status_code or 200, request_id(request.scope), msgspec.Raw(response.content))
        return LineReply(answer, state.get("done", {}).get("tokens", 0))
