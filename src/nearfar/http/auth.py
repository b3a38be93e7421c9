"""The door: everything asks for an API key but routes marked ``public``. Whose it was goes along with the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar.middleware import ASGIMiddleware

from nearfar.core.caller import Caller
from nearfar.core.errors import ApiKeyInvalid, ApiKeyMissing

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

    from nearfar.http.keys import KeyRing


class KeyGuard(ASGIMiddleware):
    """Lets a request through that carries one of the keys as ``Authorization: Bearer KEY``."""

    exclude_opt_key = "public"

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on. Raises ApiKeyMissing or ApiKeyInvalid."""
        self.check(scope)
        await next_app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Raise ApiKeyMissing or ApiKeyInvalid unless the request carries a key; note whose it is."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, presented = header.strip().partition(b" ")
        if scheme.lower() != b"bearer" or not presented.strip():
            raise ApiKeyMissing("no API key; send it as: Authorization: Bearer KEY")
        key = self._ring.find(presented.strip())
        if key is None:
            raise ApiKeyInvalid("the API key is none of those that this server was given")
        scope["state"]["caller"] = Caller(name=key.entry.name, scopes=key.entry.scopes, rate_limit=key.rate_limit)
