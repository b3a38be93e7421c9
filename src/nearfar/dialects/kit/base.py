"""Dialect: a wire protocol's routes, errors and model names.

A dialect converts a request body to a job and an answer to a response body, nothing else. Dialects are registered in
the entry-point group ``nearfar.dialects`` and never import each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from litestar import Response, Router
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from nearfar.core.errors import NearfarError
from nearfar.core.types import Task
from nearfar.dialects.kit.endpoint import PostRoute, json_response
from nearfar.dialects.kit.error_responses import ErrorTable, WireError, standard_headers, to_nearfar_error, wire_error
from nearfar.dialects.kit.request import AnyRequest


class _Router(Router):
    """The routes of a dialect in one application."""

    def __deepcopy__(self, _: object) -> _Router:
        """Return itself: Litestar copies a router deeply when it is registered, which takes most of a start."""
        return self

    def register(self, value: ControllerRouterHandler) -> list[BaseRoute]:
        """Register without OPTIONS, which the application adds again: with it, no other dialect could have the path."""
        routes = super().register(value)
        for route in routes:
            if isinstance(route, HTTPRoute):
                route.route_handlers = [one for one in route.route_handlers if "OPTIONS" not in one.http_methods]
        return routes


class Dialect(Struct, frozen=True, kw_only=True):
    """One wire protocol."""

    name: str
    # The routes of POST, and the handlers of all others.
    routes: Sequence[PostRoute] = ()
    handlers: Sequence[HTTPRouteHandler] = ()
    # A row for each class of errors that differs from the default, and what builds the body of an error.
    errors: ErrorTable = {}
    render_error: Callable[[WireError], object]
    # The vendor's own headers of an error.
    error_headers: Callable[[AnyRequest, NearfarError], dict[str, str]] = lambda *_: {}
    # A path without a route is answered by the dialect with the longest prefix that the path starts with.
    prefixes: tuple[str, ...]
    # The vendor's model names that stand for the default model of their task.
    vendor_models: Mapping[str, Task] = {}
    # The vendor's names, in lower case, of models with public weights, each with the last parts of that model's other
    # names on the hub. Such a name stands for that model only.
    open_models: Mapping[str, Sequence[str]] = {}
    # For the OpenAPI document: the type that ``render_error`` returns, and a sentence about the dialect.
    error_reply: Any = None
    about: str = ""

    def __deepcopy__(self, _: object) -> Dialect:
        """Return itself: Litestar copies exception handlers deeply, and decoders can't be copied."""
        return self

    def router(self, middleware: ASGIMiddleware) -> Router:
        """Build the routes, behind this middleware and with this dialect's error responses."""
        return _Router(
            "/",
            route_handlers=self.handlers,
            middleware=[middleware],
            exception_handlers={Exception: self.error_response},
            opt={"dialect": self.name},
        )

    def error_response(self, request: AnyRequest, exc: Exception) -> Response[bytes]:
        """Return the response for an exception. Causes and tracebacks go to the log, never to the client."""
        error = to_nearfar_error(request, exc)
        request.scope["state"]["error"] = error  # for the access log
        wire = wire_error(error, self.errors)
        headers = self.error_headers(request, error) | standard_headers(error)
        return json_response(self.render_error(wire), wire.status, headers)
