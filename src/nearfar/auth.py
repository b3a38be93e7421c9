"""The API key. Everything asks for it but routes marked ``public``; the key itself is kept only as a hash."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from litestar.middleware import ASGIMiddleware

from nearfar.errors import MissingKey, WrongKey

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send


class KeyGuard(ASGIMiddleware):
    """Lets a request through that carries the key as ``Authorization: Bearer KEY``."""

    exclude_opt_key = "public"

    def __init__(self, api_key: str) -> None:
        self._digest = _digest(api_key.encode())

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on. Raises MissingKey or WrongKey."""
        self.check(scope)
        await next_app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Raise MissingKey or WrongKey unless the request carries the key."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = header.strip().partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise MissingKey("no API key; send it as: Authorization: Bearer KEY")
        if not hmac.compare_digest(_digest(key.strip()), self._digest):
            raise WrongKey("the API key is not the one this server was given")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
