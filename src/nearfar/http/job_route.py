"""Job routes: the POST paths that run jobs. Each is one plain ASGI function, without middleware or hooks around it.

That is several times cheaper than an ordinary route of Litestar, which the other paths have.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, Response
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import ASGIRouteHandler
from litestar.types import HTTPScope, Receive, Send

from nearfar.dialects.kit.request import receive_body
from nearfar.dialects.kit.routing import JobPath
from nearfar.http.access_log import AccessLog
from nearfar.http.request_gate import RequestGate


class JobRoute:
    """Answers the requests of one path."""

    def __init__(self, job_path: JobPath, gate: RequestGate, log: AccessLog) -> None:
        self._path = job_path
        self._gate = gate
        self._log = log

    def handler(self) -> ASGIRouteHandler:
        """Return the route for Litestar."""
        return ASGIRouteHandler(self._path.path, copy_scope=False)(self.handle)

    async def handle(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request, errors included."""
        self._gate.start(scope)
        if self._gate.tracing is None:
            await self._answer(scope, receive, send)
        else:
            with self._gate.tracing.request_span(scope["state"], scope["method"], self._path.path, scope["headers"]):
                await self._answer(scope, receive, send)

    async def _answer(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope["state"]
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        dialect = self._path.owner
        is_admitted = False
        try:
            try:
                self._gate.admit(scope)
                is_admitted = True
                if scope["method"] == "POST":
                    dialect, route = self._path.choose(await receive_body(request))
                    response = await route.handler(request)
                else:
                    response = self._refuse_method(request)
            except Exception as error:  # noqa: BLE001 — the dialect converts it, and logs what is unexpected
                response = dialect.error_response(request, error)
            state["dialect"] = dialect.name
            await self._send(scope, send, response)
        finally:
            if is_admitted:
                self._gate.leave()

    def _refuse_method(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        if request.scope["method"] == "OPTIONS":
            return Response(b"", status_code=204, headers={"allow": "OPTIONS, POST"})
        return self._path.owner.error_response(request, MethodNotAllowedException())

    async def _send(self, scope: HTTPScope, send: Send, response: Response[bytes]) -> None:
        body, status = response.content, response.status_code or 200
        headers = [(b"content-length", str(len(body)).encode())]
        if response.media_type:
            headers.append((b"content-type", response.media_type.encode()))
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
        headers += self._log.finish(scope, status)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
