"""Vectors → JSON: shortest float32 decimals, or base64 of little-endian float32."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Literal

import msgspec
import orjson

if TYPE_CHECKING:
    from nearfar.types import FloatArray

Encoding = Literal["float", "base64"]

# 65,536 floats render in about 1.5 ms; below that a thread costs more than it frees.
_ON_THE_LOOP = 65_536


async def render_vectors(vectors: FloatArray, encoding: Encoding) -> list[msgspec.Raw]:
    """Give one JSON value a row of (B, D); large answers are rendered off the event loop."""
    if vectors.size <= _ON_THE_LOOP:
        return _render(vectors, encoding)
    return await asyncio.to_thread(_render, vectors, encoding)


def _render(vectors: FloatArray, encoding: Encoding) -> list[msgspec.Raw]:
    if encoding == "base64":
        little = vectors.astype("<f4", copy=False)
        return [msgspec.Raw(b'"' + base64.b64encode(row.tobytes()) + b'"') for row in little]
    return [msgspec.Raw(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in vectors]
