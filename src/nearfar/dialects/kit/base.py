"""What a dialect is: a wire protocol's routes, its words for errors, and the names its vendor gives to models.

A dialect turns a request body into a job, and an answer into a body; it decides nothing else. Dialects enter
through the entry-point group ``nearfar.dialects`` and never import each other.
"""

from __future__ import annotations

import logging
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, Router
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.status_codes import HTTP_413_REQUEST_ENTITY_TOO_LARGE, HTTP_500_INTERNAL_SERVER_ERROR
from msgspec import Struct

from nearfar.core.errors import (
    BodyTimeout,
    BodyTooLarge,
    InternalError,
    MalformedBody,
    MethodNotAllowed,
    NearfarError,
    PathNotFound,
    ServingError,
    SetupError,
)
from nearfar.core.types import Task
from nearfar.dialects.kit.error_responses import ErrorTable, WireError, wire_error
from nearfar.dialects.kit.route_docs import RouteDocs

if TYPE_CHECKING:
    from litestar.types import Scope

    from nearfar.core.jobs import Timings, Usage
    from nearfar.serving.registry.fleet import Fleet
    from nearfar.serving.service import Service

    AnyRequest = Request[Any, Any, Any]

_log = logging.getLogger(__name__)

GROUP = "nearfar.dialects"
_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_ids = random.Random()  # noqa: S311 — ids needn't be secret, only different; asking the system for each takes 20 µs


class SharedRoute(Struct, frozen=True, kw_only=True):
    """A POST that other dialects have as well: a body with one of ``fields`` is this one's, and ``answer`` answers it.

    Claims are held against a body in the order of their ``turn``; what nobody claims is for the dialect that the path
    belongs to.
    """

    path: str
    fields: tuple[str, ...] = ()
    precedence: int = 0
    handler: Callable[[AnyRequest], Awaitable[Response[bytes]]]
    docs: RouteDocs


def _no_headers(request: AnyRequest, error: NearfarError) -> dict[str, str]:  # noqa: ARG001 — as a dialect's own
    return {}


class Dialect(Struct, frozen=True, kw_only=True):
    """One wire protocol."""

    name: str
    handlers: Sequence[HTTPRouteHandler]
    # A row for each class of errors that is reported otherwise than by default, and the body of an error.
    errors: ErrorTable = {}
    render_error: Callable[[WireError], object]
    # The vendor's own headers of an error.
    error_headers: Callable[[AnyRequest, NearfarError], dict[str, str]] = _no_headers
    # A path that no route has is answered by the dialect with the longest prefix that the path starts with.
    prefixes: tuple[str, ...]
    # The vendor's own model names, which mean the default model of their task.
    vendor_models: Mapping[str, Task] = {}
    # The vendor's names, in lower case, of models with public weights, each with the last parts of that model's other
    # names on the hub. Such a name means that model and no other.
    open_models: Mapping[str, Sequence[str]] = {}
    shared: Sequence[SharedRoute] = ()
    # For the OpenAPI document: the type that ``render_error`` returns, and a sentence about the dialect.
    error_reply: Any = None
    about: str = ""

    def router(self) -> Router:
        """Build the routes, with this dialect's words for everything that goes wrong in them."""
        return Router(
            "/",
            route_handlers=self.handlers,
            exception_handlers={Exception: self.error_response},
            opt={"dialect": self.name},
        )

    def error_response(self, request: AnyRequest, exc: Exception) -> Response[bytes]:
        """Answer in this dialect's shape. Causes and tracebacks go to the log, never to the caller."""
        error = self._as_ours(request, exc)
        wire = wire_error(error, self.errors)
        headers = self.error_headers(request, error)
        if isinstance(error, ServingError) and error.retry_after_s:
            headers |= _later(error.retry_after_s)
        if isinstance(error, MethodNotAllowed):
            headers["allow"] = ", ".join(error.allowed)
        if isinstance(error, BodyTimeout):
            headers["connection"] = "close"  # else what is still to come would be waited for after all
        return json_response(self.render_error(wire), wire.status, headers)

    def _as_ours(self, request: AnyRequest, exc: Exception) -> NearfarError:
        """Turn whatever was raised into one of our errors; what nobody expected is logged here."""
        method, path = request.scope["method"][:20], request.scope["path"][:200]
        if isinstance(exc, NotFoundException):
            return PathNotFound(method, path)
        if isinstance(exc, MethodNotAllowedException):
            return MethodNotAllowed(method, path, self._methods(request.scope["path"]))
        if isinstance(exc, HTTPException) and exc.status_code == HTTP_413_REQUEST_ENTITY_TOO_LARGE:
            limit = request.app.state.settings.max_body_bytes
            return BodyTooLarge(f"the body is over {limit} bytes, the most this server reads")
        if isinstance(exc, HTTPException) and exc.status_code < HTTP_500_INTERNAL_SERVER_ERROR:
            return MalformedBody("the request can't be read")  # a bad host header
        if isinstance(exc, NearfarError) and not isinstance(exc, SetupError):
            return exc
        _log.error("request %s failed", request_id(request.scope), exc_info=exc)
        return InternalError("the server failed on this request; its log says why under this request's id")

    def handlers_of(self, path: str) -> list[HTTPRouteHandler]:
        """List this dialect's own handlers of a path, whatever their methods."""
        path = path.rstrip("/") or "/"
        return [
            handler
            for handler in self.handlers
            for template in handler.paths
            if re.fullmatch(re.sub(r"\{\w+:path\}", ".+", template), path)
        ]

    def _methods(self, path: str) -> tuple[str, ...]:
        """List the methods that a path of ours has; Litestar doesn't say, and a 405 must."""
        methods = {method for handler in self.handlers_of(path) for method in handler.http_methods}
        return tuple(sorted(methods | {"POST" for route in self.shared if route.path == path.rstrip("/")}))


def _later(seconds: float) -> dict[str, str]:
    """Say when to try again: in whole seconds, and in the milliseconds that OpenAI's and Cohere's clients look at."""
    headers = {"retry-after": str(math.ceil(seconds))}
    return headers if seconds == int(seconds) else headers | {"retry-after-ms": str(math.ceil(seconds * 1000))}


def installed_dialects() -> list[Dialect]:
    """Load every registered dialect."""
    return [point.load() for point in entry_points(group=GROUP)]


def dialect_for_path(path: str, dialects: Sequence[Dialect]) -> Dialect:
    """Choose who answers for what no route took: who has a route of that path, else who has the longest prefix."""
    path = "/" + path.lstrip("/")  # OPTIONS * has a path of its own kind
    if owner := next((dialect for dialect in dialects if dialect.handlers_of(path)), None):
        return owner
    prefixes = [(prefix, dialect) for dialect in dialects for prefix in dialect.prefixes if path.startswith(prefix)]
    return max(prefixes, key=lambda found: len(found[0]))[1]


def request_id(scope: Scope) -> str:
    """Give the request's id: the caller's own ``x-request-id`` where it is a plain token, else a new one."""
    state: dict[str, Any] = scope["state"]
    if "request_id" not in state:
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        state["request_id"] = given if _REQUEST_ID.fullmatch(given) else f"req_{_ids.getrandbits(128):032x}"
    said: str = state["request_id"]
    return said


def elapsed_ms(request: AnyRequest) -> int | None:
    """Give the milliseconds since the request began; None for one that no route took."""
    began: float | None = request.scope["state"].get("began")
    return None if began is None else round((time.perf_counter() - began) * 1000)


def service_of(request: AnyRequest) -> Service:
    service: Service = request.app.state.service
    return service


def fleet_of(request: AnyRequest) -> Fleet:
    fleet: Fleet = request.app.state.fleet
    return fleet


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Encode the body with msgspec, as UTF-8 JSON."""
    return encoded_response(msgspec.json.encode(body), status, headers)


def encoded_response(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Answer with a body that is UTF-8 JSON already."""
    return Response(body, status_code=status, headers=headers, media_type="application/json; charset=utf-8")


def record_usage(request: AnyRequest, model: str, rows: int, usage: Usage, timings: Timings | None) -> dict[str, str]:
    """Note for the log what was done, and give the headers that tell the caller."""
    state: dict[str, Any] = request.scope["state"]
    state["timings"] = timings
    state["done"] = {
        "model": model,
        "rows": rows,
        "tokens": usage.tokens,
        "cut": usage.truncated_tokens,
    }
    return {"x-nearfar-truncated-tokens": str(usage.truncated_tokens)}
