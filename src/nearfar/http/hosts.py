"""Whom a server without a key answers: callers on this machine, and no web page that its user happens to look at.

A browser will call 127.0.0.1 for any page. What such a page can't hide are two headers: ``Host``, which keeps the
page's own name where that was made to point here (DNS rebinding), and ``Origin``, which says whose page it is.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from litestar.middleware import ASGIMiddleware

from nearfar.core.errors import HostNotAllowed
from nearfar.core.settings import is_address, is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar.types import ASGIApp, Receive, Scope, Send

    from nearfar.core.settings import Settings

# Nobody can register a name below these; .internal is where containers find the machine that they run on.
_PRIVATE = (".localhost", ".local", ".internal")
_LONGEST = 200  # of what is told back


def host_guard(settings: Settings, *, asks_for_key: bool) -> HostGuard | None:
    """Build the guard that the settings ask for; None where every host will do.

    No page knows a key, and what is bound to a public address is reached by names that nobody here can know. So only
    a server for this machine alone, without a key, has a guard that wasn't asked for.
    """
    is_needed = is_loopback(settings.host) and not asks_for_key
    if "*" in settings.allowed_hosts or not (settings.allowed_hosts or is_needed):
        return None
    return HostGuard(settings.allowed_hosts, settings.cors_origins)


class HostGuard(ASGIMiddleware):
    """Lets a request through whose ``Host`` and ``Origin``, where it has them, are no stranger's."""

    exclude_opt_key = "public"

    def __init__(self, listed: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        own = socket.gethostname().lower()
        names = [name.lower() for name in listed]
        self._names = {"localhost", own, own.partition(".")[0], *names}
        self._endings = (*_PRIVATE, *(name[1:] for name in names if name.startswith("*.")))
        self._origins = frozenset(origins)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on. Raises HostNotAllowed."""
        self.check(scope)
        await next_app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Raise HostNotAllowed for a request that a stranger's page may have sent."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        stranger = next((host for host in hosts if not self._is_ours(_name_in(host))), None)
        if stranger is not None:
            raise HostNotAllowed(
                f"{stranger[:_LONGEST]!r} is no name of this server; add it to allowed_hosts, or set a key"
            )
        here = {_name_in(host) for host in hosts}
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        stranger = next((origin for origin in origins if not self._may_ask(origin, here)), None)
        if stranger is not None:
            raise HostNotAllowed(f"pages of {stranger[:_LONGEST]!r} may not ask this server; add it to cors_origins")

    def _is_ours(self, name: str) -> bool:
        """Tell whether a host is a name of ours, or an address: what has been made to point here is always a name."""
        return name in self._names or name.endswith(self._endings) or is_address(name)

    def _may_ask(self, origin: str, here: set[str]) -> bool:
        """Tell whether pages of an origin may ask: our own, this machine's, and an app's or extension's."""
        if origin in self._origins or "*" in self._origins:
            return True
        scheme, _, rest = origin.partition("://")
        if scheme not in {"http", "https"}:
            return bool(rest)  # "null" is what a page says that hides where it is from
        name = _name_in(rest)
        return name in here or name in self._names or name.endswith(".localhost") or is_loopback(name)


def _name_in(host: str) -> str:
    """Leave the port out: ``[::1]:9000`` → ``::1``, ``Name.example.:80`` → ``name.example``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()
