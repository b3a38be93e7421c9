"""Results → the parts of replies that several protocols have.

Vectors become shortest float32 decimals, bytes and bits as whole numbers, or base64 of any of them, without a Python
number on the way.
"""

from __future__ import annotations

import asyncio
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Annotated, Generic, Literal, TypeVar, cast, get_args

import msgspec
import orjson
from msgspec import UNSET, Raw, Struct, UnsetType

from nearfar.core.errors import InputError
from nearfar.core.jobs import Classified, Embedded, Ranked
from nearfar.core.types import FloatArray, IntArray
from nearfar.dialects.kit.body.chat import ChatInput
from nearfar.dialects.kit.route_docs import NumbersOrBase64, json_schema
from nearfar.serving.answers import LARGE_ANSWER
from nearfar.serving.postprocess.quantization import EmbedDtype, Quantized, convert_floats, quantize

Encoding = Literal["float", "base64"]
Dtype = Literal["float"] | Quantized
EmbeddingType = Encoding | Quantized

_EMBED_DTYPES: tuple[EmbedDtype, ...] = get_args(EmbedDtype)
_ENDIANNESS = ("native", "little", "big")
_BINARY = ("bytes", "bytes_only")
_PART = 3 << 18  # bytes that are encoded or copied at once: a multiple of three, for base64
_GAP = b"\0"  # in no JSON
_LARGE = (Raw, list, dict)

_Document = TypeVar("_Document")
_Usage = TypeVar("_Usage")


class RankedItem(Struct, Generic[_Document]):
    """A document's index in the request and its score; the document only if requested, since clients fail on null."""

    index: int
    relevance_score: float
    document: _Document | UnsetType = UNSET


class LabelScore(Struct):
    """A label and its score."""

    score: float
    label: str


class TotalTokens(Struct):
    """Tokens that the model processed."""

    total_tokens: int


class TokenUsage(TotalTokens):
    """Tokens that the model processed. There is no completion, so both are equal."""

    prompt_tokens: int


class EmbeddingItem(Struct, kw_only=True):
    """A text's vector: its numbers, or base64 of them, little-endian."""

    object: Annotated[str, json_schema(const="embedding")] = "embedding"
    index: int
    embedding: NumbersOrBase64


class EmbeddingList(Struct, Generic[_Usage], kw_only=True):
    """The vectors of texts in the form of OpenAI's protocol, in the order of the request."""

    object: Annotated[str, json_schema(const="list")] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: _Usage


def literal_error(name: str, known: Sequence[str], found: object) -> InputError:
    """Return the error for a value that a field doesn't take, with pydantic's name of it, as in vLLM's message."""
    return InputError(f"{name} must be one of {', '.join(known)}, not {str(found)[:50]!r} (literal_error)", name)


class ArrayFormat(ChatInput, kw_only=True):
    """vLLM's fields for how a reply writes arrays of numbers.

    ``embed_dtype`` and ``endianness`` are those of base64 and of bytes; numbers in JSON have neither. ``bytes`` is a
    binary reply with its description in the header ``metadata``, and ``bytes_only`` one without.
    """

    encoding_format: Annotated[str, json_schema(enum=["float", "base64", *_BINARY])] | None = None
    embed_dtype: Annotated[str, json_schema(enum=list(_EMBED_DTYPES))] | None = None
    endianness: Annotated[str, json_schema(enum=list(_ENDIANNESS))] | None = None

    def check_format(self) -> None:
        """Raise InputError for an unknown type or order of bytes."""
        for name, known in (("embed_dtype", _EMBED_DTYPES), ("endianness", _ENDIANNESS)):
            found: str | None = getattr(self, name)
            if found not in {None, *known}:
                raise literal_error(name, known, found)

    @property
    def is_binary(self) -> bool:
        """Return whether the reply is bytes instead of JSON."""
        return self.encoding_format in _BINARY

    def to_bytes(self, array: FloatArray) -> bytes:
        """Return the array's bytes. Raises InputError for numbers that the type can't represent."""
        dtype = cast("EmbedDtype", self.embed_dtype or "float32")
        return convert_floats(array, dtype, is_big_endian=self.endianness == "big").tobytes()

    def render(self, array: FloatArray) -> msgspec.Raw:
        """Return the array as JSON: numbers, or base64 of its bytes."""
        if self.encoding_format == "base64":
            view = memoryview(self.to_bytes(array))
            parts = [binascii.b2a_base64(part, newline=False) for part in _split(view)]
            return Raw(b"".join([b'"', *parts, b'"']))
        return render_array(array)


class Binary(Struct, frozen=True):
    """A reply of bytes, with its description as JSON for the header ``metadata``."""

    content: bytes
    metadata: str | None


def binary_reply(arrays: Sequence[FloatArray], form: ArrayFormat, about: dict[str, object]) -> Binary:
    """Return all arrays one after another. ``about`` is the reply's id, time, model and usage."""
    parts = [form.to_bytes(array) for array in arrays]
    ends = [*accumulate(map(len, parts))]
    data = [
        {
            "index": index,
            "embed_dtype": form.embed_dtype or "float32",
            "endianness": form.endianness or "native",
            "start": end - len(part),
            "end": end,
            "shape": array.shape,
        }
        for index, (array, part, end) in enumerate(zip(arrays, parts, ends, strict=True))
    ]
    return Binary(b"".join(parts), json.dumps({**about, "data": data}) if form.encoding_format == "bytes" else None)


def embedding_list(done: Embedded, vectors: Sequence[msgspec.Raw], usage: _Usage) -> EmbeddingList[_Usage]:
    """Return a reply with an item for each of the rendered vectors."""
    data = [EmbeddingItem(index=index, embedding=vector) for index, vector in enumerate(vectors)]
    return EmbeddingList(data=data, model=done.info.name, usage=usage)


def ranked_items(done: Ranked, documents: Sequence[_Document] | None = None) -> list[RankedItem[_Document]]:
    """Return an item for each result, best first, with its document if the request's are given."""
    return [
        RankedItem(found.index, found.score, UNSET if documents is None else documents[found.index])
        for found in done.results
    ]


def sorted_labels(done: Classified) -> list[list[LabelScore]]:
    """Return each text's labels by descending score; equal scores keep the model's order."""
    labels = done.info.labels or ("LABEL_0",)
    rows = [[LabelScore(*pair) for pair in zip(scores.tolist(), labels, strict=True)] for scores in done.scores]
    return [sorted(row, key=lambda label: -label.score) for row in rows]


def render_rows(done: Embedded, dtype: Dtype = "float", encoding: Encoding = "float") -> list[msgspec.Raw]:
    """Render one JSON value for each vector: its numbers of this type, or base64 of their little-endian bytes.

    Raises InputError for a type that this model's vectors can't be converted to.
    """
    rows = done.vectors if dtype == "float" else quantize(done.vectors, dtype, done.int8_range)
    if encoding == "base64":
        little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        return [msgspec.Raw(b'"%b"' % binascii.b2a_base64(row, newline=False)) for row in little]
    return [msgspec.Raw(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in rows]


def render_types(done: Embedded, kinds: Sequence[EmbeddingType]) -> dict[str, list[msgspec.Raw]]:
    """Render the vectors in each of these forms. Raises as ``render_rows`` does."""
    return {kind: render_rows(done, encoding=kind) if kind == "base64" else render_rows(done, kind) for kind in kinds}


async def encode_reply(numbers: int, build: Callable[[], object]) -> bytes | Binary:
    """Encode what ``build`` returns, in a thread when it renders many numbers."""
    if numbers > LARGE_ANSWER:
        return await asyncio.to_thread(encode_built, numbers, build)
    return encode_built(numbers, build)


def encode_built(numbers: int, build: Callable[[], object]) -> bytes | Binary:
    """Encode what ``build`` returns: in parts, so that other threads run, when it renders many numbers."""
    reply = build()
    if isinstance(reply, Binary):
        return reply
    return b"".join(_encode_parts(reply)) if numbers > LARGE_ANSWER else msgspec.json.encode(reply)


def render_array(array: FloatArray | IntArray) -> msgspec.Raw:
    """Render an array of any shape, each number with the fewest digits that identify it."""
    if array.size <= LARGE_ANSWER:
        return Raw(_dump(array))
    rows = max(LARGE_ANSWER * len(array) // array.size, 1)
    parts = [_dump(array[at : at + rows])[1:-1] for at in range(0, len(array), rows)]
    return Raw(b"".join([b"[", b",".join(parts), b"]"]))


def render_each(array: FloatArray) -> list[bytes]:
    """Render each number of (k,)."""
    return [found for found in _dump(array)[1:-1].split(b",") if found]


def _dump(array: FloatArray | IntArray) -> bytes:
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def _encode_parts(value: object) -> Iterator[bytes]:
    """Yield the JSON of a value in parts: no other thread runs while msgspec encodes or copies a large value."""
    if isinstance(value, Raw):
        yield from map(bytes, _split(memoryview(value)))
    elif isinstance(value, list) and any(isinstance(item, _LARGE) or _large_fields(item) for item in value[:1]):
        for at, item in enumerate(value):
            yield b"," if at else b"["
            yield from _encode_parts(item)
        yield b"]"
    elif fields := _large_fields(value):
        gaps = dict.fromkeys(fields, Raw(_GAP))
        skeleton = (
            {**value, **gaps} if isinstance(value, dict) else msgspec.structs.replace(cast("Struct", value), **gaps)
        )
        before, *after = msgspec.json.encode(skeleton).split(_GAP)
        yield before
        for item, rest in zip(fields.values(), after, strict=True):
            yield from _encode_parts(item)
            yield rest
    else:
        yield msgspec.json.encode(value)


def _large_fields(value: object) -> dict[str, object]:
    """Return the values of a struct or dict that may be large."""
    if isinstance(value, Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    return (
        {name: item for name, item in value.items() if isinstance(item, _LARGE) and item}
        if isinstance(value, dict)
        else {}
    )


def _split(content: memoryview) -> list[memoryview]:
    return [content[at : at + _PART] for at in range(0, len(content), _PART)]
