"""The installed dialects, and which of them answers a request.

A path that several dialects have, such as /tokenize, is dispatched by the fields of the request body.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from litestar import Request, Response, Router, post
from litestar.handlers import HTTPRouteHandler

from nearfar.core.errors import MalformedBody
from nearfar.core.plugins import load_plugins
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.endpoint import SharedRoute
from nearfar.dialects.kit.request import read_body

GROUP = "nearfar.dialects"
_log = logging.getLogger(__name__)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def installed_dialects() -> list[Dialect]:
    """Load every registered dialect. Logs and skips one that fails to import."""
    found = []
    for name, plugin in load_plugins(GROUP)[0].items():
        if isinstance(plugin, Dialect):
            found.append(plugin)
        else:
            _log.warning("skipped plugin %s of %s: it is no Dialect but %s", name, GROUP, type(plugin).__name__)
    return found


def dialect_for_path(path: str, dialects: Sequence[Dialect]) -> Dialect:
    """Return the dialect that has a route of this path, else the one with the longest prefix of it."""
    path = "/" + path.lstrip("/")  # that of OPTIONS * has no slash
    if owner := next((dialect for dialect in dialects if dialect.handlers_of(path)), None):
        return owner
    prefixes = [(prefix, dialect) for dialect in dialects for prefix in dialect.prefixes if path.startswith(prefix)]
    return max(prefixes, key=lambda found: len(found[0]))[1]


def shared_router(dialects: Sequence[Dialect]) -> Router:
    """Build one route for each path that several dialects share."""
    candidates: dict[str, list[tuple[Dialect, SharedRoute]]] = {}
    for dialect in dialects:
        for route in dialect.shared:
            candidates.setdefault(route.path, []).append((dialect, route))
    return Router("/", route_handlers=[_dispatcher(path, found, dialects) for path, found in candidates.items()])


def _dispatcher(
    path: str, candidates: Sequence[tuple[Dialect, SharedRoute]], dialects: Sequence[Dialect]
) -> HTTPRouteHandler:
    owner = dialect_for_path(path, dialects)
    candidates = sorted(candidates, key=lambda candidate: candidate[1].precedence)
    fallback = next((candidate for candidate in candidates if candidate[0] is owner), candidates[0])

    @post(path, status_code=200)
    async def dispatch(request: Request[Any, Any, Any]) -> Response[bytes]:
        fields: dict[str, msgspec.Raw] = {}
        with suppress(MalformedBody, msgspec.ValidationError):  # the handler refuses the body
            fields = await read_body(request, _fields)
        dialect, route = fallback
        for candidate in candidates:
            if not fields.keys().isdisjoint(candidate[1].fields):
                dialect, route = candidate
                break
        request.scope["state"]["dialect"] = dialect.name
        try:
            return await route.handler(request)
        except Exception as error:  # noqa: BLE001 — the dialect converts it, and logs what is unexpected
            return dialect.error_response(request, error)

    return dispatch
