"""Protection against web pages: a server without a key answers only this machine's programs and listed origins.

Any page in a browser can send requests to 127.0.0.1, but it can't forge two headers. After DNS rebinding, where the
page's domain resolves to this server, ``Host`` is still that domain. ``Origin`` is the page's own origin.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import lru_cache

from nearfar.core.errors import HostNotAllowed
from nearfar.core.settings import Settings, is_address, is_loopback
from nearfar.http.gate.cors import Origins, without_port

# Nothing below these is in the public DNS; containers find their host under .internal.
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")
_CACHED_VERDICTS = 256
_MAX_QUOTED = 200  # characters of a header in an error message


def host_guard(settings: Settings, *, requires_key: bool) -> HostGuard | None:
    """Build the guard for these settings; None if any host is allowed.

    Without ``allowed_hosts`` only a server on loopback that requires no key needs a guard. A page doesn't know the key,
    and the names by which a public address is reached are unknown here.
    """
    is_needed = is_loopback(settings.host) and not requires_key
    if "*" in settings.allowed_hosts or not (settings.allowed_hosts or is_needed):
        return None
    return HostGuard(settings.allowed_hosts, Origins(settings.cors_origins))


class HostGuard:
    """Refuses requests with a ``Host`` or ``Origin`` that isn't allowed, except on routes marked ``public``."""

    def __init__(self, allowed_hosts: Iterable[str], origins: Origins) -> None:
        hostname = socket.gethostname().lower()
        names = [name.lower() for name in allowed_hosts]
        self._names = {"localhost", hostname, hostname.partition(".")[0], *names}
        self._suffixes = (*_PRIVATE_SUFFIXES, *(name[1:] for name in names if name.startswith("*.")))
        self._origins = origins

        # ``check`` with its verdicts cached: most requests have the same headers.
        self.cached_check = lru_cache(maxsize=_CACHED_VERDICTS)(self.check)

    def check(self, *headers: tuple[bytes, bytes]) -> None:
        """Raise HostNotAllowed for ``Host`` and ``Origin`` headers that a foreign web page may have sent."""
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        for host in hosts:
            if not self._is_host_allowed(without_port(host)):
                raise HostNotAllowed(
                    f"{host[:_MAX_QUOTED]!r} is not a name of this server; add it to allowed_hosts, or set a key"
                )
        own_names = {without_port(host) for host in hosts}
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        for origin in origins:
            if not self._is_origin_allowed(origin, own_names):
                raise HostNotAllowed(
                    f"pages of {origin[:_MAX_QUOTED]!r} may not call this server; add it to cors_origins"
                )

    def _is_host_allowed(self, name: str) -> bool:
        """Return whether a host is a name of this machine or an address; DNS rebinding always shows a name."""
        return name in self._names or name.endswith(self._suffixes) or is_address(name)

    def _is_origin_allowed(self, origin: str, own_names: set[str]) -> bool:
        """Return whether an origin is this server, or allowed."""
        if self._origins.is_allowed(origin):
            return True
        scheme, _, rest = origin.partition("://")
        return scheme in {"http", "https"} and (without_port(rest) in own_names or without_port(rest) in self._names)
