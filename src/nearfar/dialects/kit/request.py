"""Bodies → what a decoder makes of them, and work that goes on only for as long as its caller is there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from litestar.exceptions import InternalServerException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from nearfar.core.errors import BodyTimeout, ClientDisconnected, InputError, MalformedBody

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from nearfar.dialects.kit.base import AnyRequest

_T = TypeVar("_T")
# Inputs of one request, where a protocol has no limit of its own that callers can live with.
MAX_INPUTS = 2048
# Of a body that is too large: guesses.
_MOST_DISCARDED = 100_000_000
_DISCARD_S = 5.0
_PAUSE_S = 2.0  # who sends nothing for so long isn't sending any more


async def read_request(request: AnyRequest, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode the body. Raises MalformedBody, or InputError in msgspec's words for JSON of another shape."""
    try:
        return await read_body(request, decoder)
    except msgspec.ValidationError as error:
        raise InputError(str(error)) from error


async def read_body(request: AnyRequest, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode the body.

    Raises MalformedBody where it isn't JSON, msgspec.ValidationError where it is JSON of another shape, and BodyTimeout
    where it doesn't come.
    """
    limit_s: float = request.app.state.settings.receive_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            body = await request.body()
    except TimeoutError as error:
        raise BodyTimeout(f"the body didn't arrive within {limit_s:g} s, the most this server waits for one") from error
    except RequestEntityTooLarge:
        if "expect" not in request.headers:  # who asks first whether to send needn't
            await _discard(request)
        raise
    except InternalServerException as error:  # Litestar's word for an upload that broke off
        raise ClientDisconnected("the caller closed the connection while sending") from error
    return decode_json(body, decoder)


async def _discard(request: AnyRequest) -> None:
    """Read on for a while: who is still sending when the connection ends may never see the answer."""
    left = _MOST_DISCARDED
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while left > 0:
                message = await asyncio.wait_for(request.receive(), _PAUSE_S)
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                left -= len(message["body"])


def decode_json(body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode a body, or a part of one that was left as it came. Raises as ``read_body`` does."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        cut = "it ends too early, or has a broken \\u escape" if body else "it is empty"
        raise MalformedBody(cut if "truncated" in str(error) else str(error)) from error
    except UnicodeDecodeError as error:
        raise MalformedBody("the body is not UTF-8") from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply") from error


async def cancel_on_disconnect(request: AnyRequest, work: Coroutine[Any, Any, _T]) -> _T:
    """Do the work for as long as the caller stays. Raises ClientDisconnected, having cancelled it, when they leave."""
    working = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        with suppress(Exception):  # a connection that can't be heard any more is gone as well
            while (await request.receive())["type"] != "http.disconnect":
                pass
        gone = True
        if working:
            working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and working and not working.uncancel():
            raise ClientDisconnected("the caller closed the connection") from None
        raise
    finally:
        watching.cancel()
