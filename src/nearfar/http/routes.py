"""The routes that run jobs: plain ASGI functions, found by their exact path before Litestar looks for one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec
from litestar import Request, Response
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from nearfar.batches.activity import Activity
from nearfar.core.errors import EngineError, MalformedBody, NearfarError
from nearfar.core.types import Task
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.body.decode import decode_json
from nearfar.dialects.kit.body.receive import discard_body, receive_body
from nearfar.dialects.kit.checks import FIELDS
from nearfar.dialects.kit.endpoint import PostRoute
from nearfar.dialects.kit.request import AnyRequest, fleet_of
from nearfar.dialects.kit.routing import JobPath
from nearfar.http.access_log import AccessLog
from nearfar.http.gate.cors import Origins
from nearfar.http.gate.gate import RequestGate
from nearfar.http.pages import INDEX_PATH, wants_page
from nearfar.serving.registry.fleet import Fleet
from nearfar.telemetry.tracing import Tracing

_name = msgspec.json.Decoder(str | None)


class JobRoute:
    """Answers a POST path that runs jobs: one plain ASGI function, without middleware or hooks around it.

    That is several times cheaper than an ordinary route of Litestar.
    """

    def __init__(self, job_path: JobPath, gate: RequestGate, log: AccessLog, activity: Activity) -> None:
        self.path = job_path.path
        self.handle = self._handle_traced if gate.tracing else self._handle
        self._path = job_path
        self._gate = gate
        self._log = log
        self._activity = activity

    def handler(self) -> ASGIRouteHandler:
        """Return the route for Litestar."""
        return ASGIRouteHandler(self.path, copy_scope=False)(self.handle)

    async def _handle_traced(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        tracing = cast("Tracing", self._gate.tracing)
        with tracing.request_span(scope["state"], scope["method"], self.path, scope["headers"]):
            await self._handle(scope, receive, send)

    async def _handle(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request, errors included."""
        state = self._gate.begin(scope)
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        dialect = self._path.owner
        is_admitted = False
        try:
            try:
                self._gate.admit(scope)
                is_admitted = True
            except Exception as error:  # noqa: BLE001 — the dialect converts it, and logs what is unexpected
                response = refuse(dialect, request, error)
                await discard_body(request)
            else:
                self._activity.record()
                dialect, response = await self.answer(request)
            state["dialect"] = dialect.name
            body, status = response.content, response.status_code or 200
            headers = [(b"content-length", b"%d" % len(body))]
            if response.media_type:
                headers.append((b"content-type", response.media_type.encode()))
            for name, value in response.headers.items():
                headers.append((name.encode("latin-1"), value.encode("latin-1")))
            headers += self._log.finish(scope, status)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            if is_admitted:
                self._gate.leave()

    async def answer(self, request: AnyRequest) -> tuple[Dialect, Response[bytes]]:
        """Return the answer to a request that was admitted, errors included, and the dialect that it is of."""
        dialect = self._path.owner
        if request.scope["method"] != "POST":
            return dialect, self._refuse_method(request)
        try:
            dialect, route = self.choose(fleet_of(request), await receive_body(request))
            return dialect, await route.handler(request)
        except Exception as error:  # noqa: BLE001 — the dialect converts it, and logs what is unexpected
            return dialect, refuse(dialect, request, error)

    def choose(self, fleet: Fleet, body: bytes) -> tuple[Dialect, PostRoute]:
        """Return the dialect and the route that answer a body, by the fields that it has."""
        if self._path.candidates:
            fields: dict[str, msgspec.Raw] = {}
            with suppress(MalformedBody, msgspec.ValidationError):  # the handler refuses the body
                fields = decode_json(body, FIELDS)
            for dialect, route in self._path.candidates:
                if fields.keys().isdisjoint(route.fields):
                    continue
                if route.tasks and not _has_only(fleet, route.tasks, fields.get("model")):
                    continue
                if any(bytes(fields[name]) != b"null" for name in route.fields if name in fields):
                    return dialect, route
        return self._path.fallback

    def _refuse_method(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        allowed = {"allow": "OPTIONS, POST"}
        if request.scope["method"] == "OPTIONS":
            return Response(b"", status_code=204, headers=allowed)
        return self._path.owner.error_response(request, MethodNotAllowedException(headers=allowed))


def _has_only(fleet: Fleet, tasks: Sequence[Task], model: bytes | msgspec.Raw | None) -> bool:
    """Return whether the model of this name, which is JSON, has none but these tasks; None: all served models."""
    name = None
    with suppress(msgspec.DecodeError):
        name = _name.decode(model or b"null")
    return bool(found := fleet.known_tasks(name)) and {*found} <= {*tasks}


def refuse(dialect: Dialect, request: AnyRequest, error: Exception) -> Response[bytes]:
    """Return the response for an error, which keeps nothing of the request alive."""
    response = dialect.error_response(request, error)
    if isinstance(error, NearfarError):
        _free_frames(error)
    return response


def _free_frames(error: BaseException | None) -> None:
    """Free the body that the frames of an error refer to: the request's state keeps the error for its log line.

    They are a cycle, which the garbage collector may find only after a thousand more requests.
    """
    while error:
        error.__traceback__ = None
        # What an engine raised has no body, and its traceback may still wait to be logged.
        error = None if isinstance(error, EngineError) else error.__cause__ or error.__context__


class JobRouter:
    """Passes requests to the job route of their exact path, and all others to Litestar: HEAD as GET, without a body.

    Litestar's own way to a handler takes 15 µs, as long as rendering a vector.
    """

    def __init__(self, routes: Iterable[JobRoute], litestar: ASGIApp, origins: Origins) -> None:
        self._handlers = {route.path: route.handle for route in routes}
        self._litestar = litestar
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == ScopeType.HTTP:
            if scope["method"] == "OPTIONS" and await self._origins.answer_preflight(scope, send):
                return
            if handle := self._handlers.get(scope["path"]):
                scope["path_template"] = scope["path"]
                await handle(scope, receive, send)
                return
            if wants_page(scope):
                scope["path"] = INDEX_PATH
            if scope["method"] == "HEAD":
                scope["state"]["method"] = "HEAD"
                scope["method"], send = HttpMethod.GET, _without_body(send)
        await self._litestar(scope, receive, send)


def _without_body(send: Send) -> Send:
    async def send_without_body(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_without_body
