"""Vectors → JSON: shortest float32 decimals, or base64 of little-endian float32. No Python float is made on the way."""

from __future__ import annotations

import asyncio
import binascii
from typing import TYPE_CHECKING, Literal

import msgspec
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.types import FloatArray

Encoding = Literal["float", "base64"]

# 32,768 floats render in about a millisecond; below that a thread costs more than it frees.
_ON_THE_LOOP = 32_768


async def render_reply(vectors: FloatArray, encoding: Encoding, reply: Callable[[list[msgspec.Raw]], object]) -> bytes:
    """Give the whole JSON body: ``reply`` builds it around one JSON value a row of (B, D).

    Large answers are rendered and put together off the event loop.
    """

    def render() -> bytes:
        return msgspec.json.encode(reply(_render(vectors, encoding)))

    return render() if vectors.size <= _ON_THE_LOOP else await asyncio.to_thread(render)


def _render(vectors: FloatArray, encoding: Encoding) -> list[msgspec.Raw]:
    if encoding == "base64":
        little = vectors.astype("<f4", copy=False)
        return [msgspec.Raw(b'"%b"' % binascii.b2a_base64(row, newline=False)) for row in little]
    return [msgspec.Raw(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in vectors]
