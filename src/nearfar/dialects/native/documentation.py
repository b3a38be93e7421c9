"""The OpenAPI document as JSON and the manual as HTML. Neither needs an API key."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request, Response, get

from nearfar.core.errors import PathNotFound
from nearfar.dialects.kit.endpoint import encoded_response
from nearfar.dialects.kit.route_docs import route_docs
from nearfar.docs import PAGES
from nearfar.docs.html import POLICY, manual_index, manual_page

_HTML: dict[str, Any] = {
    "media_type": "text/html",
    "headers": {"content-security-policy": "Forbids everything but the page's own style"},
}
_OPENAPI = route_docs("Return this document", reply=dict[str, Any], raises=())
_MANUAL = route_docs("List the manual's pages", **_HTML, raises=())
_PAGE = route_docs("Return a page of the manual", **_HTML, path={"page": "api"}, raises=(PathNotFound,))


@get(["/openapi.json", "/api-doc/openapi.json"], opt={"public": True, **_OPENAPI})
async def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the OpenAPI 3.1 document of all routes."""
    return encoded_response(await asyncio.to_thread(request.app.state.documentation.json))


@get("/docs/manual", opt={"public": True, **_MANUAL})
async def manual(request: Request[Any, Any, Any]) -> Response[str]:
    """Return the list of the manual's pages."""
    return _html(manual_index(request.base_url.path))


@get("/docs/manual/{page:str}", opt={"public": True, **_PAGE})
async def page(request: Request[Any, Any, Any]) -> Response[str]:
    """Return one page. Raises PathNotFound."""
    name = request.path_params["page"]
    if name not in PAGES:
        raise PathNotFound("GET", request.scope["path"])
    return _html(manual_page(name, request.base_url.path))


def _html(text: str) -> Response[str]:
    return Response(text, media_type="text/html", headers={"content-security-policy": POLICY})
