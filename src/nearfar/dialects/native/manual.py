"""The manual as HTML, under ``/docs/manual``."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get

from nearfar.core.errors import PathNotFound
from nearfar.dialects.kit.route_docs import route_docs
from nearfar.docs import PAGES
from nearfar.docs.html import POLICY, manual_index, manual_page

_HTML: dict[str, Any] = {
    "media_type": "text/html",
    "headers": {"content-security-policy": "Forbids scripts and everything else that isn't in the page."},
}
_INDEX = route_docs("The manual: a list of its pages.", **_HTML, raises=())
_PAGE = route_docs("One page of the manual.", **_HTML, path={"page": "api"}, raises=(PathNotFound,))


@get("/docs/manual", opt={"public": True, **_INDEX})
async def index(request: Request[Any, Any, Any]) -> Response[str]:
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


handlers = [index, page]
