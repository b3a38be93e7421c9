"""Receives the body of a request, within the limits on its size and time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from nearfar.core.errors import BodyTimeout, BodyTooLarge, ClientDisconnected
from nearfar.dialects.kit.body.content import BOM_STARTS, inflate, to_utf8
from nearfar.dialects.kit.body.decode import replace_lone_surrogates
from nearfar.dialects.kit.checks import refuse_many_values
from nearfar.dialects.kit.request import AnyRequest, ServerParts
from nearfar.serving.timeouts import CancelScope
from nearfar.serving.uploads import SMALL_UPLOAD, Upload

# How long to read on after a body that is too large. Guesses.
_MAX_DISCARDED_BYTES = 100_000_000
_DISCARD_TIMEOUT_S = 5.0
_IDLE_TIMEOUT_S = 2.0
# Bodies up to this size are decoded in at most 40 ms, whatever they contain.
ALWAYS_DECODED = 262_144


async def receive_body(request: AnyRequest) -> bytes:
    """Return the body, inflated and as UTF-8. It may be called again.

    Raises BodyTooLarge for one over the server's limit, BodyTimeout if it doesn't arrive, ClientDisconnected if the
    upload breaks off, EncodingNotSupported for an unknown encoding, and MalformedBody if it doesn't have the named one.
    """
    state: dict[str, Any] = request.scope["state"]
    body: bytes | None = state.get("body")
    if body is None:
        server: ServerParts = state["server"]
        settings = server.settings
        body = await _receive(request, settings.max_body_bytes, settings.receive_timeout_s)
        headers: dict[bytes, bytes] = state["headers"]
        encodings = headers.get(b"content-encoding", b"").decode("latin-1")
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        if encodings or len(body) > ALWAYS_DECODED:
            body = await asyncio.to_thread(_prepare, body, encodings, content_type, settings.max_body_bytes)
        elif "=" in content_type or body[:1] in BOM_STARTS:
            body = to_utf8(body, content_type)
        state["body"] = body
    return body


def _prepare(body: bytes, encodings: str, content_type: str, limit: int) -> bytes:
    """Inflate a body and convert it to UTF-8; repair a long one. Raises BodyTooLarge for one with too many values."""
    body = to_utf8(inflate(body, encodings, limit), content_type)
    if len(body) > ALWAYS_DECODED:
        refuse_many_values(body)
        body = replace_lone_surrogates(body)
    return body


async def discard_body(request: AnyRequest) -> None:
    """Read a small body that isn't used. On HTTP/2 a client may lose an answer that comes before its body has ended."""
    if request.scope["http_version"] == "2":
        await read_on(request, SMALL_UPLOAD)


async def _receive(request: AnyRequest, limit: int, limit_s: float) -> bytes:
    """Receive the parts of the body. Raises BodyTimeout, ClientDisconnected, and BodyTooLarge once it is too large."""
    state: dict[str, Any] = request.scope["state"]
    server: ServerParts = state["server"]
    headers: dict[bytes, bytes] = state["headers"]
    announced = headers.get(b"content-length", b"")
    size = int(announced) if announced.isdigit() else 0
    parts: list[bytes] = []
    upload: Upload | None = None
    received, more = 0, True
    try:
        with CancelScope(server.timeouts, limit_s) as scope:
            server.uploads.arrivals[scope] = server.uploads.clock()
            while more and size <= limit:
                message = await request.receive()
                if message["type"] != "http.request":
                    raise ClientDisconnected("the caller closed the connection while sending")
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
                received += len(parts[-1])
                if more or not announced:
                    size = max(size, received)
                if more and SMALL_UPLOAD < received <= limit:
                    whole = size if announced else limit
                    upload = upload or await server.uploads.reserve(whole, received, scope)
                    server.uploads.record(upload, received)
    except TimeoutError as error:
        raise BodyTimeout(f"the body didn't arrive within {limit_s:g} s, the most this server waits for one") from error
    finally:
        server.uploads.arrivals.pop(scope, None)
        if upload:
            server.uploads.release(upload)
        if more:
            parts.clear()  # the error's traceback would keep them
    if size > limit:
        # A client that waits for "100 Continue" needs no reading on.
        if more and b"expect" not in headers:
            await read_on(request)
        raise BodyTooLarge(f"the body is over {limit} bytes, the most this server reads")
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def read_on(request: AnyRequest, left: int = _MAX_DISCARDED_BYTES) -> None:
    """Read on for a while: a client that is still sending when the connection ends may never see the response."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_TIMEOUT_S):
            while left > 0:
                message = await asyncio.wait_for(request.receive(), _IDLE_TIMEOUT_S)
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                left -= len(message["body"])
