"""OpenAI's embeddings: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Struct

from nearfar.dialects.kit.base import encoded_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.rendering import render_reply
from nearfar.dialects.kit.request import cancel_on_disconnect, read_body
from nearfar.dialects.kit.route_docs import NOT_EMPTY, NumbersOrBase64, RouteDocs, json_schema, requires
from nearfar.dialects.openai.headers import ANSWER_HEADERS, answer_headers
from nearfar.dialects.openai.request import EmbeddingsRequest, bad_shape, decoder, encoding_of, to_job

if TYPE_CHECKING:
    from litestar import Response

    from nearfar.core.jobs import Embedded
    from nearfar.dialects.kit.base import AnyRequest


class Embedding(Struct, kw_only=True):
    """One vector: numbers, or base64 of little-endian float32 where that was asked for."""

    object: Annotated[str, json_schema(const="embedding")] = "embedding"
    index: int
    embedding: NumbersOrBase64


class Tokens(Struct):
    """The tokens that went through the model; an embedding completes nothing, so both are the same."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request."""

    object: Annotated[str, json_schema(const="list")] = "list"
    data: list[Embedding]
    model: str
    usage: Tokens


EMBEDDINGS = RouteDocs(
    summary="Vectors of texts, or of token ids",
    body=requires(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingsReply,
    example={"model": "text-embedding-3-small", "input": "a cat on the sofa"},
    examples={
        "texts": {"model": "text-embedding-3-small", "input": ["a cat on the sofa", "a dog in the garden"]},
        "token ids": {"model": "text-embedding-3-small", "input": [[15339, 1917], [8134]]},
        "base64": {"model": "text-embedding-3-small", "input": "a cat on the sofa", "encoding_format": "base64"},
    },
    reply_example={
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    },
    headers=ANSWER_HEADERS,
)


async def create_embeddings(request: AnyRequest) -> Response[bytes]:
    try:
        body = await read_body(request, decoder)
        job, encoding = to_job(body), encoding_of(body.encoding_format)
    except msgspec.ValidationError as error:
        raise bad_shape(error) from error
    done = await cancel_on_disconnect(request, service_of(request).embed(job, caller_of(request.scope)))
    encoded = await render_reply(done.vectors, encoding, lambda rendered: _reply(done, rendered))
    headers = record_usage(request, done.model, len(done.vectors), done.usage, done.timings) | answer_headers(
        request, done.model
    )
    return encoded_response(encoded, headers=headers)


def _reply(done: Embedded, rendered: list[msgspec.Raw]) -> EmbeddingsReply:
    return EmbeddingsReply(
        data=[Embedding(index=index, embedding=vector) for index, vector in enumerate(rendered)],
        model=done.model,
        usage=Tokens(prompt_tokens=done.usage.tokens, total_tokens=done.usage.tokens),
    )
