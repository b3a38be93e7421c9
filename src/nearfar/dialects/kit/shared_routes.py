"""Paths that several dialects have, such as /tokenize: the body's fields tell whose a request is.

What nobody's field is in is answered, and refused, by the dialect that answers for the path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, Router, post

from nearfar.core.errors import MalformedBody
from nearfar.dialects.kit.base import dialect_for_path
from nearfar.dialects.kit.request import read_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar.handlers import HTTPRouteHandler

    from nearfar.dialects.kit.base import AnyRequest, Dialect, SharedRoute

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def shared_router(dialects: Sequence[Dialect]) -> Router:
    """Build one route for each path that a dialect shares."""
    claims: dict[str, list[tuple[Dialect, SharedRoute]]] = {}
    for dialect in dialects:
        for route in dialect.shared:
            claims.setdefault(route.path, []).append((dialect, route))
    return Router("/", route_handlers=[_handler(path, claimed, dialects) for path, claimed in claims.items()])


def _handler(
    path: str, claimed: Sequence[tuple[Dialect, SharedRoute]], dialects: Sequence[Dialect]
) -> HTTPRouteHandler:
    owner = dialect_for_path(path, dialects)
    claimed = sorted(claimed, key=lambda claim: claim[1].precedence)
    unclaimed = next((claim for claim in claimed if claim[0] is owner), claimed[0])

    @post(path, status_code=200)
    async def answer(request: Request[Any, Any, Any]) -> Response[bytes]:
        fields = await _fields_of(request)
        dialect, route = next((claim for claim in claimed if not fields.keys().isdisjoint(claim[1].fields)), unclaimed)
        request.scope["state"]["dialect"] = dialect.name
        try:
            return await route.handler(request)
        except Exception as error:  # noqa: BLE001 — in the words of whoever was asked; what is unexpected is logged there
            return dialect.error_response(request, error)

    return answer


async def _fields_of(request: AnyRequest) -> dict[str, msgspec.Raw]:
    """Look at the body's first level; what can't be read is left to be refused by whoever reads it whole."""
    try:
        return await read_body(request, _fields)
    except (MalformedBody, msgspec.ValidationError):
        return {}
