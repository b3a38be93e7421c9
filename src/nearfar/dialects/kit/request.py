"""The request: its id, its caller, and work that ends when the client disconnects."""

from __future__ import annotations

import random
import re
import time
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from litestar import Request
from litestar.types import Scope
from msgspec import Struct

from nearfar.batches.batch_queue import BatchQueue
from nearfar.batches.storage import Storage
from nearfar.core.caller import ANONYMOUS, LOWEST_PRIORITY, Caller
from nearfar.core.errors import ClientDisconnected, InputError
from nearfar.core.settings import Settings
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.service import Service
from nearfar.serving.timeouts import CancelScope, Timeouts
from nearfar.serving.uploads import Uploads

AnyRequest = Request[Any, Any, Any]

PRIORITY, TIMEOUT = b"x-nearfar-priority", b"x-nearfar-timeout-s"
RETRIES = b"x-stainless-retry-count"  # OpenAI's clients send it
_MAX_DIGITS = 6
_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_ids = random.Random()  # noqa: S311 — ids need to be different, not secret; the system's randomness takes 20 µs
# How long a request runs before its connection is watched for a disconnect.
_WATCH_AFTER_S = 0.05


def request_id(scope: Scope) -> str:
    """Return the request's id: the client's own ``x-request-id`` where it is a plain token, else a new one."""
    state: dict[str, Any] = scope["state"]
    if "request_id" not in state:
        sent = state["headers"].get(b"x-request-id", b"").decode("latin-1")
        state["request_id"] = sent if _REQUEST_ID.fullmatch(sent) else new_request_id()
    found: str = state["request_id"]
    return found


def new_request_id() -> str:
    """Return an id that no other request has."""
    return f"req_{_ids.getrandbits(128):032x}"


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
    batches: BatchQueue


def service_of(request: AnyRequest) -> Service:
    """Return the service that runs jobs."""
    server: ServerParts = request.scope["state"]["server"]
    return server.service


def storage_of(request: AnyRequest) -> Storage:
    """Return the store of files and batches."""
    server: ServerParts = request.scope["state"]["server"]
    return server.batches.storage


def settings_of(request: AnyRequest) -> Settings:
    """Return the server's settings."""
    server: ServerParts = request.scope["state"]["server"]
    return server.settings


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


def cancel_on_disconnect(request: AnyRequest) -> CancelScope:
    """Return a scope that is cancelled, and raises ClientDisconnected, when the client closes the connection.

    Most work is done before a client would leave, so the connection is only watched after a while.
    """
    server: ServerParts = request.scope["state"]["server"]
    return CancelScope(server.timeouts, _WATCH_AFTER_S, partial(_watch, request))


async def _watch(request: AnyRequest, scope: CancelScope) -> None:
    with suppress(Exception):  # a connection that can't be read is closed, too
        while (await request.receive())["type"] != "http.disconnect":
            pass
    scope.error = ClientDisconnected("the caller closed the connection")
    scope.cancel()
