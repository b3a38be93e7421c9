"""Cross-origin requests: which web pages may read responses, and the headers that browsers need for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from litestar.types import Scope, Send

from nearfar.core.settings import is_loopback

_Headers = list[tuple[bytes, bytes]]

_CACHED_ORIGINS = 256
_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 — a browser reaches this machine by it; nothing is bound to it here
_EXPOSED = b"x-request-id, x-nearfar-truncated-tokens, retry-after, retry-after-ms"  # pages may read these
_METHODS = b"GET, HEAD, POST, DELETE"
_VARY = (b"vary", b"Origin")
_REQUESTED_HEADERS, _PRIVATE_NETWORK = b"access-control-request-headers", b"access-control-request-private-network"


class Origins:
    """The origins of web pages that are allowed: those listed in ``cors_origins``, and local ones, as Ollama has it."""

    def __init__(self, listed: Iterable[str] = ()) -> None:
        listed = tuple(listed)
        self.all_allowed = "*" in listed
        self._listed = re.compile("|".join(map(_pattern, listed)) or "(?!)", re.IGNORECASE)

        # ``is_allowed`` with its verdicts cached: most requests of a page have the same origin.
        self.cached_check = lru_cache(maxsize=_CACHED_ORIGINS)(self.is_allowed)

    def is_allowed(self, origin: str) -> bool:
        """Return whether an origin is listed, a page of this machine, an app or a browser extension.

        ``null``, the origin of sandboxed pages, has no scheme and so isn't local.
        """
        if self.all_allowed or self._listed.fullmatch(origin):
            return True
        scheme, separator, rest = origin.partition("://")
        if scheme.lower() not in {"http", "https"}:
            return bool(scheme and separator)
        name = without_port(rest)
        return name.endswith(".localhost") or name == _ANY_ADDRESS or is_loopback(name)

    def response_headers(self, origin: bytes) -> _Headers:
        """Return the headers that allow the page to read a response; none for an origin that isn't allowed."""
        if not self.cached_check(origin.decode("latin-1")):
            return []
        allowed = b"*" if self.all_allowed else origin
        return [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", _EXPOSED), _VARY]

    def preflight_headers(self, sent: dict[bytes, bytes]) -> _Headers:
        """Return the headers that answer a preflight request; none for any other request, and no allowed origin."""
        if b"access-control-request-method" not in sent or b"transfer-encoding" in sent:  # it has no body
            return []
        if not (found := self.response_headers(sent.get(b"origin", b""))):
            return []
        requested = sent.get(_REQUESTED_HEADERS, b"authorization, content-type")
        found += [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", requested),
            (b"access-control-max-age", b"600"),
        ]
        if sent.get(_PRIVATE_NETWORK) == b"true":  # a public page that calls a server on the user's own network
            found.append((b"access-control-allow-private-network", b"true"))
        return found

    async def answer_preflight(self, scope: Scope, send: Send) -> bool:
        """Answer a preflight request of an allowed origin, which carries no key. Return whether it was one."""
        headers = self.preflight_headers(dict(scope["headers"]))
        if headers:
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        return bool(headers)


def without_port(host: str) -> str:
    """Return the bare host: ``[::1]:9000`` → ``::1``, ``Name.example.:80`` → ``name.example``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()


def _pattern(origin: str) -> str:
    """Return a regular expression: ``*`` is any part of a host or scheme, and at the end any port, or none."""
    start, any_port = (origin[:-2], r"(:\d+)?") if origin.endswith(":*") else (origin, "")
    return re.escape(start).replace(r"\*", "[^/?#@:]*") + any_port
