"""Voyage's embeddings; and NVIDIA's, whose bodies differ by a few words and come on the paths that all share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import msgspec
from litestar import Request, Response, post
from msgspec import UNSET, Struct, UnsetType

from nearfar.core import errors
from nearfar.core.jobs import EmbedJob
from nearfar.dialects.kit.base import encoded_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.rendering import Dtype, Encoding, render_dtype
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request
from nearfar.dialects.kit.route_docs import (
    BASE64,
    NOT_EMPTY,
    NUMBERS,
    AtLeastOne,
    NotEmpty,
    RouteDocs,
    json_schema,
    requires,
)
from nearfar.dialects.voyage.arguments import checked, named

if TYPE_CHECKING:
    from nearfar.core.jobs import Embedded
    from nearfar.core.settings import OnOverflow
    from nearfar.core.types import KeepSide, Role
    from nearfar.dialects.kit.base import AnyRequest

_MAX_INPUTS = 2048  # Voyage's is 1,000; more breaks no client
_ROLES: dict[str, Role] = {"query": "query", "document": "document", "passage": "document"}  # the last is NVIDIA's
_DTYPES: tuple[Dtype, ...] = ("float", "int8", "uint8", "binary", "ubinary")
_ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
_TRUNCATE: dict[str | None, tuple[OnOverflow | None, KeepSide]] = {
    None: (None, "start"),
    "NONE": ("error", "start"),
    "START": ("truncate", "end"),
    "END": ("truncate", "start"),
}


class VoyageEmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /voyage/v1/embeddings. Null means absent; fields not named here are ignored.

    ``truncate`` is NVIDIA's, and ``dimensions`` is what it and OpenAI's clients call ``output_dimension``.
    """

    model: str | None = None
    input: NotEmpty | Annotated[list[NotEmpty], json_schema(minItems=1, maxItems=_MAX_INPUTS)]
    input_type: Annotated[str, json_schema(enum=list(_ROLES))] | None = None
    truncation: bool | None = None
    output_dimension: AtLeastOne | None = None
    output_dtype: Annotated[str, json_schema(enum=list(_DTYPES))] | None = None
    encoding_format: Annotated[str, json_schema(enum=list(_ENCODINGS))] | None = None
    truncate: Annotated[str, json_schema(enum=[said for said in _TRUNCATE if said])] | bool | None = None
    dimensions: AtLeastOne | None = None


class VoyageEmbedding(Struct, kw_only=True):
    """One text's vector: numbers of the kind asked for, or base64 of their bytes."""

    object: str = "embedding"
    embedding: Annotated[
        msgspec.Raw, json_schema(anyOf=[NUMBERS, {**BASE64, "description": "the numbers' bytes, little-endian"}])
    ]
    index: int


class VoyageUsage(Struct, kw_only=True):
    """Tokens that went through the model; OpenAI's clients want them by another name as well."""

    prompt_tokens: int | UnsetType = UNSET
    total_tokens: int


class VoyageEmbeddingsReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request."""

    object: str = "list"
    data: list[VoyageEmbedding]
    model: str
    usage: VoyageUsage


DESCRIBED = RouteDocs(
    summary="Vectors of queries or documents, as floats, bytes or bits",
    body=requires(VoyageEmbeddingsRequest, model=NOT_EMPTY),
    reply=VoyageEmbeddingsReply,
    example={"model": "voyage-3.5", "input_type": "query", "input": ["Where is the cat?"], "output_dtype": "int8"},
    reply_example={
        "object": "list",
        "data": [{"object": "embedding", "embedding": [12, -45, 127], "index": 0}],
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "usage": {"total_tokens": 7},
    },
)
_decoder = msgspec.json.Decoder(VoyageEmbeddingsRequest)


@post("/voyage/v1/embeddings", status_code=200, opt={"docs": DESCRIBED})
async def create(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _answer(request)


async def answer_shared(request: AnyRequest) -> Response[bytes]:
    """Answer where OpenAI's clients may be listening: with the count of tokens that they need."""
    return await _answer(request, shared=True)


async def _answer(request: AnyRequest, *, shared: bool = False) -> Response[bytes]:
    body = await read_request(request, _decoder)
    dtype = cast("Dtype", checked("output_dtype", body.output_dtype, _DTYPES) or "float")
    encoding = cast("Encoding", checked("encoding_format", body.encoding_format, _ENCODINGS) or "float")
    job = _job(body)
    done = await cancel_on_disconnect(request, service_of(request).embed(job, caller_of(request.scope)))

    def reply(rendered: list[msgspec.Raw]) -> VoyageEmbeddingsReply:
        return _reply(done, rendered, shared=shared)

    encoded = await render_dtype(done, dtype, encoding, reply)
    return encoded_response(
        encoded, headers=record_usage(request, done.model, len(job.inputs), done.usage, done.timings)
    )


def _job(body: VoyageEmbeddingsRequest) -> EmbedJob:
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or "" in texts:
        raise errors.EmptyInput("Input cannot contain empty strings or empty lists", "input")
    if len(texts) > _MAX_INPUTS:
        raise errors.TooManyItems("input", len(texts), _MAX_INPUTS)
    input_type = checked("input_type", body.input_type, _ROLES)
    on_overflow, keep = _overflow(body)
    return EmbedJob(
        model=named(body.model),
        inputs=tuple(texts),
        dimensions=body.dimensions if body.output_dimension is None else body.output_dimension,
        role=_ROLES[input_type] if input_type else None,
        on_overflow=on_overflow,
        keep=keep,
    )


def _overflow(body: VoyageEmbeddingsRequest) -> tuple[OnOverflow | None, KeepSide]:
    """Say what becomes of a text that is too long. Where nothing is said it is cut, or the operator has said so."""
    truncation = body.truncate if body.truncation is None and isinstance(body.truncate, bool) else body.truncation
    if truncation is not None:
        return ("truncate" if truncation else "error"), "start"
    said = body.truncate if isinstance(body.truncate, str) else None
    checked("truncate", said, [known for known in _TRUNCATE if known])
    return _TRUNCATE[said]


def _reply(done: Embedded, rendered: list[msgspec.Raw], *, shared: bool) -> VoyageEmbeddingsReply:
    tokens = done.usage.tokens
    return VoyageEmbeddingsReply(
        data=[VoyageEmbedding(embedding=vector, index=index) for index, vector in enumerate(rendered)],
        model=done.model,
        usage=VoyageUsage(prompt_tokens=tokens if shared else UNSET, total_tokens=tokens),
    )
