"""The page for browsers: its files, served as they are, under a policy that allows nothing from elsewhere."""

from __future__ import annotations

import hashlib
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from litestar import Request, Response, get
from litestar.types import HTTPScope

from nearfar.core.errors import PathNotFound
from nearfar.dialects.kit.request import settings_of

# Where the page is, for requests to / that prefer HTML. Its links are relative, and the same from both.
INDEX_PATH = "/ui"
_INDEX = PurePosixPath("index.html")
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "vary": "accept",  # of / alone
}


def wants_page(scope: HTTPScope) -> bool:
    """Return whether a request is a browser's for the page: other clients of / get JSON."""
    if scope["path"] != "/" or scope["method"] not in {"GET", "HEAD"}:
        return False
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


@get([INDEX_PATH, "/ui/{name:path}"], opt={"public": True})
async def page_file(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the page or one of its files; 304 for one that the browser has. Raises PathNotFound."""
    asked = request.path_params.get("name")
    name = _INDEX if asked is None else PurePosixPath(str(asked).lstrip("/"))
    content = _read_files().get(name)
    if content is None or (asked is not None and name == _INDEX):
        raise PathNotFound("GET", request.scope["path"])
    root = settings_of(request).root_path
    if name == _INDEX and root:
        content = content.replace(b"<head>", f'<head>\n<base href="{escape(root)}/">'.encode(), 1)
    etag = _etag(content)
    is_known = request.headers.get("if-none-match") == etag
    return Response(
        b"" if is_known else content,
        status_code=304 if is_known else 200,
        media_type=_MEDIA_TYPES[name.suffix],
        headers={**_HEADERS, "etag": etag},
    )


@get(["/docs", "/redoc"], opt={"public": True})
async def docs(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Redirect to the manual and the API reference, which are in the page."""
    return Response(b"", status_code=302, headers={"location": f"{settings_of(request).root_path}/#/docs"})


@cache
def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


@cache
def _read_files() -> dict[PurePosixPath, bytes]:
    """Return the files by their paths below ``site``."""
    found = {}
    folders = [(PurePosixPath(), files(__package__) / "site")]
    while folders:
        path, folder = folders.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((path / entry.name, entry))
            else:
                found[path / entry.name] = entry.read_bytes()
    return found
