"""The request: its id, caller and body, and work that ends when the client disconnects."""

from __future__ import annotations

import asyncio
import codecs
import json
import random
import re
import time
import zlib
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.types import Scope
from msgspec import Struct

from nearfar.core.caller import ANONYMOUS, LOWEST_PRIORITY, Caller
from nearfar.core.errors import (
    BodyTimeout,
    BodyTooLarge,
    ClientDisconnected,
    EncodingNotSupported,
    InputError,
    MalformedBody,
)
from nearfar.core.settings import Settings
from nearfar.dialects.kit.checks import refuse_many_values
from nearfar.serving.answers import UnreadAnswers
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.service import Service
from nearfar.serving.timeouts import CancelScope, Timeouts
from nearfar.serving.uploads import SMALL_UPLOAD, Upload, Uploads

AnyRequest = Request[Any, Any, Any]
_T = TypeVar("_T")

# The most inputs of one request, where its protocol has no limit: decoding more would stop all other requests.
MAX_INPUTS = 65_536
PRIORITY, TIMEOUT = b"x-nearfar-priority", b"x-nearfar-timeout-s"
RETRIES = b"x-stainless-retry-count"  # OpenAI's clients send it
_MAX_DIGITS = 6
_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_ids = random.Random()  # noqa: S311 — ids need to be different, not secret; the system's randomness takes 20 µs
_INFLATED = {"gzip", "x-gzip", "deflate"}
_GZIP_START, _MAX_MEMBERS = b"\x1f\x8b", 64  # each further member of a gzip body copies the rest of it
# The longer mark first: UTF-32's begins with UTF-16's.
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BOM_STARTS = {b"\xef", b"\xff", b"\xfe", b"\x00"}
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:+-]+)", re.IGNORECASE | re.ASCII)
# Those that Python decodes in linear time; it has others, such as punycode.
_KNOWN_CHARSETS = re.compile("utf|iso|latin|l1|cp|ibm|win|koi|mac|gb|big5|euc|shift|s_?jis|ms|ks|tis|hz")
# How long to read on after a body that is too large. Guesses.
_MAX_DISCARDED_BYTES = 100_000_000
_DISCARD_TIMEOUT_S = 5.0
_IDLE_TIMEOUT_S = 2.0
# How long a request runs before its connection is watched for a disconnect.
_WATCH_AFTER_S = 0.05
# Bodies up to this size are decoded in at most 40 ms, whatever they contain.
_ALWAYS_DECODED = 262_144


def request_id(scope: Scope) -> str:
    """Return the request's id: the client's own ``x-request-id`` where it is a plain token, else a new one."""
    state: dict[str, Any] = scope["state"]
    if "request_id" not in state:
        sent = state["headers"].get(b"x-request-id", b"").decode("latin-1")
        state["request_id"] = sent if _REQUEST_ID.fullmatch(sent) else f"req_{_ids.getrandbits(128):032x}"
    found: str = state["request_id"]
    return found


def elapsed_ms(request: AnyRequest) -> int | None:
    """Return the milliseconds since the request began; None for one that no route took."""
    began: float | None = request.scope["state"].get("began")
    return None if began is None else round((time.perf_counter() - began) * 1000)


class ServerParts(Struct, frozen=True):
    """The parts of the server that requests use."""

    settings: Settings
    fleet: Fleet
    service: Service
    timeouts: Timeouts
    uploads: Uploads
    unread: UnreadAnswers


def service_of(request: AnyRequest) -> Service:
    """Return the service that runs jobs."""
    server: ServerParts = request.scope["state"]["server"]
    return server.service


def fleet_of(request: AnyRequest) -> Fleet:
    """Return the served models."""
    server: ServerParts = request.scope["state"]["server"]
    return server.fleet


def caller_of(scope: Scope, priority: int | None = None) -> Caller:
    """Return the caller by the request's key and headers. ``priority`` is the body's; it overrides the header.

    Raises InputError for a header that isn't a number in its range.
    """
    state: dict[str, Any] = scope["state"]
    caller: Caller = state.get("caller", ANONYMOUS)
    headers: dict[bytes, bytes] = state["headers"]
    if priority is None and headers.keys().isdisjoint((PRIORITY, TIMEOUT, RETRIES)):
        return caller
    if priority is None:
        priority = int(_number(headers, PRIORITY, 0, LOWEST_PRIORITY)) if PRIORITY in headers else 0
    timeout_s = _number(headers, TIMEOUT, 0.001, 86_400) if TIMEOUT in headers else None
    retries = headers.get(RETRIES, b"")
    return msgspec.structs.replace(
        caller,
        priority=priority,
        timeout_s=timeout_s,
        retries=int(retries) if retries.isdigit() and len(retries) < _MAX_DIGITS else None,
    )


def _number(headers: dict[bytes, bytes], name: bytes, lowest: float, highest: float) -> float:
    try:
        number = float(headers[name])
    except ValueError:
        number = -1
    if not lowest <= number <= highest:
        raise InputError(f"{name.decode()} must be a number from {lowest:g} to {highest:g}", name.decode())
    return number


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
        if encodings or len(body) > _ALWAYS_DECODED:
            body = await asyncio.to_thread(_prepare, body, encodings, content_type, settings.max_body_bytes)
        elif "=" in content_type or body[:1] in _BOM_STARTS:
            body = _to_utf8(body, content_type)
        state["body"] = body
    return body


def _prepare(body: bytes, encodings: str, content_type: str, limit: int) -> bytes:
    """Inflate a body and convert it to UTF-8. Raises BodyTooLarge for one with too many values."""
    body = _to_utf8(_inflate(body, encodings, limit), content_type)
    if len(body) > _ALWAYS_DECODED:
        refuse_many_values(body)
    return body


def _inflate(body: bytes, encodings: str, limit: int) -> bytes:
    """Undo the content encodings, the last one first. Inflates no more than ``limit`` bytes."""
    for encoding in reversed(encodings.lower().replace(" ", "").split(",")):
        if encoding in {"", "identity"}:
            continue
        if encoding not in _INFLATED:
            raise EncodingNotSupported(f"content-encoding {encoding[:40]!r} isn't supported; send gzip or deflate")
        try:
            body = _inflate_members(body, encoding, limit)
        except zlib.error as error:
            raise MalformedBody(f"the body is not {encoding}, which its content-encoding names") from error
    return body


def _inflate_members(body: bytes, encoding: str, limit: int) -> bytes:
    """Inflate deflate, or gzip of one or several members. Raises zlib.error, MalformedBody, BodyTooLarge."""
    # Some clients send deflate without the header of zlib, which always begins with 8 in its first half byte.
    is_raw = encoding == "deflate" and body[:1] and body[0] & 0x0F != zlib.DEFLATED
    inflated = b""
    for _ in range(_MAX_MEMBERS):
        inflating = zlib.decompressobj(-zlib.MAX_WBITS if is_raw else zlib.MAX_WBITS | 32)
        inflated += inflating.decompress(body, limit + 1 - len(inflated))
        if len(inflated) > limit:
            raise BodyTooLarge(f"the inflated body is over {limit} bytes, the most this server reads")
        if body and not inflating.eof:
            raise MalformedBody(f"the {encoding} body ends too early")
        body = inflating.unused_data
        if not body.startswith(_GZIP_START):
            return inflated
    raise MalformedBody(f"the {encoding} body has over {_MAX_MEMBERS} members")


def _to_utf8(body: bytes, content_type: str) -> bytes:
    """Convert the body from the charset that its content type or its byte order mark names; without the mark."""
    if mark := next((mark for mark in _BOMS if body.startswith(mark)), None):
        charset = _BOMS[mark]
    else:
        named = _CHARSET.search(content_type)
        charset = named[1].lower() if named else "utf-8"
    if charset in {"utf-8", "utf8", "us-ascii", "ascii"}:  # decoding the JSON checks it
        return body
    if not _KNOWN_CHARSETS.match(charset):
        raise EncodingNotSupported(f"charset {charset[:40]!r} isn't supported; send UTF-8")
    try:
        return body.decode(charset).encode()
    except LookupError as error:
        raise EncodingNotSupported(f"charset {charset[:40]!r} isn't supported; send UTF-8") from error
    except UnicodeError as error:
        raise MalformedBody(f"the body is not {charset}, which its content-type names") from error


async def discard_body(request: AnyRequest) -> None:
    """Read a small body that isn't used. On HTTP/2 a client may lose an answer that comes before its body has ended."""
    if request.scope["http_version"] == "2":
        await _discard(request, SMALL_UPLOAD)


async def _receive(request: AnyRequest, limit: int, limit_s: float) -> bytes:
    """Receive the parts of the body. Raises BodyTimeout, ClientDisconnected, and BodyTooLarge once it is too large."""
    state: dict[str, Any] = request.scope["state"]
    server: ServerParts = state["server"]
    headers: dict[bytes, bytes] = state["headers"]
    announced = headers.get(b"content-length", b"")
    size = int(announced) if announced.isdigit() else 0
    parts: list[bytes] = []
    received = 0
    upload: Upload | None = None
    more = True
    try:
        with CancelScope(server.timeouts, limit_s) as scope:
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
        if upload:
            server.uploads.release(upload)
        if more:
            parts.clear()  # the error's traceback would keep them
    if size > limit:
        # A client that waits for "100 Continue" needs no reading on.
        if more and b"expect" not in headers:
            await _discard(request, _MAX_DISCARDED_BYTES)
        raise BodyTooLarge(f"the body is over {limit} bytes, the most this server reads")
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _discard(request: AnyRequest, left: int) -> None:
    """Read on for a while: a client that is still sending when the connection ends may never see the response."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_TIMEOUT_S):
            while left > 0:
                message = await asyncio.wait_for(request.receive(), _IDLE_TIMEOUT_S)
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                left -= len(message["body"])


def decode_json(body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode a body, or a part of one that was left undecoded.

    Half of a surrogate pair in an escape, which clients leave where they cut an emoji in two, is read as U+FFFD. Raises
    MalformedBody if the body isn't JSON, and msgspec.ValidationError for JSON of another shape.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        if (repaired := _replace_lone_surrogates(body)) not in {None, body}:
            return decode_json(repaired, decoder)
        cut = "it ends too early, or has a broken \\u escape" if body else "it is empty"
        raise MalformedBody(cut if "truncated" in str(error) else str(error)) from error
    except UnicodeDecodeError as error:
        raise MalformedBody("the body is not UTF-8") from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply") from error


def _replace_lone_surrogates(body: bytes) -> bytes | None:
    """Return the JSON with U+FFFD for each lone surrogate, as Go reads it; None without escapes of any, or no JSON."""
    if b"\\ud" not in body.lower():
        return None
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


async def cancel_on_disconnect(request: AnyRequest, work: Coroutine[Any, Any, _T]) -> _T:
    """Run the work. Cancels it and raises ClientDisconnected when the client closes the connection.

    Most work is done before a client would leave, so the connection is only watched after a while.
    """
    timeouts: Timeouts = request.scope["state"]["server"].timeouts
    scope = CancelScope()
    watching: asyncio.Task[None] | None = None

    async def watch() -> None:
        with suppress(Exception):  # a connection that can't be read is closed, too
            while (await request.receive())["type"] != "http.disconnect":
                pass
        scope.error = ClientDisconnected("the caller closed the connection")
        scope.cancel()

    def start_watching() -> None:
        nonlocal watching
        watching = asyncio.create_task(watch())

    key = timeouts.add(_WATCH_AFTER_S, start_watching)
    try:
        with scope:
            return await work
    finally:
        timeouts.discard(key)
        if watching:
            watching.cancel()
