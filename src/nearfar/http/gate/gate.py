"""The gate that every request passes: during a shutdown, from foreign web pages and without a key it is refused."""

from __future__ import annotations

import time
from typing import Any, cast

from litestar.types import Scope

from nearfar.core.errors import AmbiguousLength, HeadTooLarge
from nearfar.dialects.kit.request import ServerParts
from nearfar.http.gate.auth import KeyGuard
from nearfar.http.gate.drain import Drain
from nearfar.http.gate.hosts import HostGuard
from nearfar.telemetry.tracing import Tracing

_MAX_HEADERS = 100  # granian's limit on HTTP/1; it has none on HTTP/2
_TRANSFER_ENCODING = b"transfer-encoding"
_HOST_HEADERS = {b"host", b"origin"}


class RequestGate:
    """Refuses requests during a shutdown, from foreign web pages, and without a valid key."""

    def __init__(
        self,
        server: ServerParts,
        drain: Drain,
        *,
        hosts: HostGuard | None,
        keys: KeyGuard | None,
        tracing: Tracing | None,
    ) -> None:
        self.tracing = tracing
        self._server = server
        self._drain = drain
        self._hosts = hosts
        self._keys = keys

    def begin(self, scope: Scope) -> dict[str, Any]:
        """Return the state of a new request."""
        state: dict[str, Any] = scope["state"]
        state["began"] = time.perf_counter()
        state["server"] = self._server
        state["headers"] = dict(scope["headers"])
        return state

    def check(self, scope: Scope, *, is_public: bool = False) -> None:
        """Raise HeadTooLarge or AmbiguousLength for a head that granian passes on.

        Raises HostNotAllowed, ApiKeyMissing or ApiKeyInvalid as well, unless the route ``is_public``.
        """
        headers = cast("list[tuple[bytes, bytes]]", scope["headers"])
        if len(headers) > _MAX_HEADERS:
            raise HeadTooLarge(f"the request has {len(headers)} headers; at most {_MAX_HEADERS} are allowed")
        if _TRANSFER_ENCODING in scope["state"]["headers"]:
            codings = [value.strip().lower() for name, value in headers if name == _TRANSFER_ENCODING]
            if codings != [b"chunked"]:
                raise AmbiguousLength("the transfer-encoding must be chunked, once and alone")
        if self._hosts and not is_public:
            self._hosts.cached_check(*[header for header in headers if header[0] in _HOST_HEADERS])
        if self._keys and not is_public:
            self._keys.check(scope)

    def admit(self, scope: Scope) -> None:
        """Count a request in. Raises ShuttingDown, and what ``check`` raises."""
        if self._drain.is_draining:
            self._drain.refuse_if_draining()
        self.check(scope)
        self._drain.in_flight += 1

    def leave(self) -> None:
        """Count a request out, once it is answered."""
        self._drain.in_flight -= 1
        if self._drain.is_draining:
            self._drain.notify()
