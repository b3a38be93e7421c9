"""Vectors → JSON: shortest float32 decimals, bytes and bits as whole numbers, or base64 of what any of them are.

No Python number is made on the way.
"""

from __future__ import annotations

import asyncio
import binascii
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import orjson

from nearfar.serving.postprocess.quantization import Quantized, quantize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nearfar.core.jobs import Embedded
    from nearfar.core.types import FloatArray

Encoding = Literal["float", "base64"]
Dtype = Literal["float"] | Quantized
EmbeddingType = Encoding | Quantized

# 32,768 floats render in about a millisecond; below that a thread costs more than it frees.
_ON_THE_LOOP = 32_768


async def render_reply(vectors: FloatArray, encoding: Encoding, reply: Callable[[list[msgspec.Raw]], object]) -> bytes:
    """Give the whole JSON body: ``reply`` builds it around one JSON value a row of (B, D).

    Large answers are rendered and put together off the event loop.
    """
    return await encode_json(vectors.size, lambda: reply(_render(vectors, encoding)))


async def render_types(
    done: Embedded, kinds: Sequence[EmbeddingType], reply: Callable[[dict[str, list[msgspec.Raw]]], object]
) -> bytes:
    """Give the whole JSON body around the same vectors in each of these forms, as ``render_reply`` does.

    Raises InputError for bytes that this model's vectors can't be made into.
    """

    def rows(kind: EmbeddingType) -> list[msgspec.Raw]:
        if kind == "float" or kind == "base64":  # noqa: PLR1714 — the type checker sees only this
            return _render(done.vectors, kind)
        return _numbers(quantize(done.vectors, kind, done.int8_range))

    return await encode_json(done.vectors.size * len(kinds), lambda: reply({kind: rows(kind) for kind in kinds}))


async def render_dtype(
    done: Embedded, dtype: Dtype, encoding: Encoding, reply: Callable[[list[msgspec.Raw]], object]
) -> bytes:
    """Give the whole JSON body around the vectors as numbers of this kind, or as base64 of their bytes.

    Raises InputError for bytes that this model's vectors can't be made into.
    """

    def rows() -> list[msgspec.Raw]:
        if dtype == "float":
            return _render(done.vectors, encoding)
        quantized = quantize(done.vectors, dtype, done.int8_range)
        return _base64(quantized) if encoding == "base64" else _numbers(quantized)

    return await encode_json(done.vectors.size, lambda: reply(rows()))


async def encode_json(size: int, body: Callable[[], object]) -> bytes:
    """Encode what ``body`` builds around so many numbers; off the event loop where they are many."""

    def encoded() -> bytes:
        return msgspec.json.encode(body())

    return encoded() if size <= _ON_THE_LOOP else await asyncio.to_thread(encoded)


def _render(vectors: FloatArray, encoding: Encoding) -> list[msgspec.Raw]:
    return _base64(vectors.astype("<f4", copy=False)) if encoding == "base64" else _numbers(vectors)


def _base64(rows: Iterable[Any]) -> list[msgspec.Raw]:
    return [msgspec.Raw(b'"%b"' % binascii.b2a_base64(row, newline=False)) for row in rows]


def _numbers(rows: Iterable[object]) -> list[msgspec.Raw]:
    return [numbers(row) for row in rows]


def numbers(array: object) -> msgspec.Raw:
    """Render an array of any shape, each number at its shortest."""
    return msgspec.Raw(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))


def numbers_each(array: FloatArray) -> list[msgspec.Raw]:
    """Render the numbers of (k,) one by one."""
    return [
        msgspec.Raw(found)
        for found in orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        if found
    ]
