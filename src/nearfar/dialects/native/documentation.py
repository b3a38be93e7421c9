"""The OpenAPI document and the manual, as JSON and HTML. All of them need no API key."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request, Response, get

from nearfar.core.errors import PathNotFound
from nearfar.dialects.kit.endpoint import encoded_response
from nearfar.dialects.native.route_docs import DOCS, MANUAL, MANUAL_PAGE, OPENAPI
from nearfar.docs import PAGES
from nearfar.docs.html import POLICY, manual_index, manual_page


@get(["/openapi.json", "/api-doc/openapi.json"], opt={"public": True, **OPENAPI})
async def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the OpenAPI 3.1 document of all routes."""
    return encoded_response(await asyncio.to_thread(request.app.state.documentation.json))


@get(["/docs", "/redoc"], opt={"public": True, **DOCS})
async def docs(request: Request[Any, Any, Any]) -> Response[str]:
    """Return the OpenAPI document as a page, which has no scripts and fetches nothing."""
    documentation = request.app.state.documentation
    return _html(await asyncio.to_thread(documentation.page, str(request.base_url)), documentation.policy)


@get("/docs/manual", opt={"public": True, **MANUAL})
async def manual(request: Request[Any, Any, Any]) -> Response[str]:
    """Return the list of the manual's pages."""
    return _html(manual_index(request.base_url.path))


@get("/docs/manual/{page:str}", opt={"public": True, **MANUAL_PAGE})
async def page(request: Request[Any, Any, Any]) -> Response[str]:
    """Return one page. Raises PathNotFound."""
    name = request.path_params["page"]
    if name not in PAGES:
        raise PathNotFound("GET", request.scope["path"])
    return _html(manual_page(name, request.base_url.path))


def _html(text: str, policy: str = POLICY) -> Response[str]:
    return Response(text, media_type="text/html", headers={"content-security-policy": policy})
