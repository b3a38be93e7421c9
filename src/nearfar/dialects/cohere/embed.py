"""Cohere's embed, versions 1 and 2, for texts: https://docs.cohere.com/reference/embed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
from litestar import Request, Response, post

from nearfar.core import errors
from nearfar.core.jobs import EmbedJob
from nearfar.dialects.cohere.bodies import (
    MAX_TEXTS,
    ONE_OF,
    TYPES,
    EmbedReply,
    EmbedV1Request,
    EmbedV2Request,
)
from nearfar.dialects.cohere.envelope import (
    ANSWER_HEADERS,
    ApiVersion,
    BilledUnits,
    Meta,
    answer_headers,
    meta_example,
    named,
    refuse_priority,
)
from nearfar.dialects.kit.base import encoded_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.rendering import render_reply, render_types
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request
from nearfar.dialects.kit.route_docs import NOT_EMPTY, requires, route_docs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.jobs import Embedded
    from nearfar.core.settings import OnOverflow
    from nearfar.core.types import KeepSide, Role
    from nearfar.dialects.cohere.bodies import TextPart
    from nearfar.dialects.kit.base import AnyRequest
    from nearfar.dialects.kit.rendering import EmbeddingType

_ROLES: dict[str, Role] = {
    "search_document": "document",
    "search_query": "query",
    "classification": "classification",
    "clustering": "clustering",
}
_TRUNCATE: dict[str | None, tuple[OnOverflow | None, KeepSide]] = {
    None: (None, "start"),  # Cohere's default is END, and so is ours, unless the operator has said otherwise
    "NONE": ("error", "start"),
    "START": ("truncate", "end"),
    "END": ("truncate", "start"),
}
_EXAMPLE = {"model": "embed-v4.0", "texts": ["a cat on the sofa"], "input_type": "search_document"}


def _replied(version: str, embeddings: object) -> dict[str, object]:
    """Give what the OpenAPI document shows."""
    return {
        "id": "7e3d5b1c-4a52-4f0e-9a53-2c8a3d1f0b6e",
        "embeddings": embeddings,
        "texts": ["a cat on the sofa"],
        "meta": meta_example(version, input_tokens=7),
        "response_type": "embeddings_by_type" if isinstance(embeddings, dict) else "embeddings_floats",
    }


_V1 = route_docs(
    "Vectors of texts",
    body=Annotated[EmbedV1Request, ONE_OF],
    reply=EmbedReply,
    example=_EXAMPLE,
    examples={"by type": _EXAMPLE | {"embedding_types": ["float", "int8"]}},
    reply_example=_replied("1", [[0.1431, -0.0766, -0.0241]]),
    headers=ANSWER_HEADERS,
)
_V2 = route_docs(
    "Vectors of texts, by type",
    body=Annotated[requires(EmbedV2Request, model=NOT_EMPTY, input_type={"type": "string"}), ONE_OF],
    reply=EmbedReply,
    example=_EXAMPLE,
    examples={
        "inputs": {
            "model": "embed-v4.0",
            "inputs": [{"content": [{"type": "text", "text": "a cat on the sofa"}]}],
            "input_type": "search_query",
            "embedding_types": ["float", "base64", "int8", "uint8", "binary", "ubinary"],
            "truncate": "START",
        }
    },
    reply_example=_replied("2", {"float": [[0.1431, -0.0766, -0.0241]]}),
    headers=ANSWER_HEADERS,
)
_v1 = msgspec.json.Decoder(EmbedV1Request)
_v2 = msgspec.json.Decoder(EmbedV2Request)


@post(["/v1/embed", "/v1/v1/embed"], status_code=200, opt=_V1)
async def embed_v1(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _v1)
    return await _answer(request, body, _types(body.embedding_types), version="1")


@post(["/v2/embed", "/v1/v2/embed"], status_code=200, opt=_V2)
async def embed_v2(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _v2)
    named(body.model)
    if body.input_type is None:
        raise _no_input_type()
    refuse_priority(body.priority)
    return await _answer(request, body, _types(body.embedding_types) or ["float"], version="2")


async def _answer(
    request: AnyRequest, body: EmbedV1Request, kinds: Sequence[EmbeddingType], *, version: str
) -> Response[bytes]:
    """Embed, and answer with these types, or with plain lists of floats for none."""
    texts = _texts(body)
    priority = body.priority if isinstance(body, EmbedV2Request) else None
    done = await cancel_on_disconnect(
        request, service_of(request).embed(_job(body, texts), caller_of(request.scope, priority))
    )

    def reply(embeddings: list[msgspec.Raw] | dict[str, list[msgspec.Raw]]) -> EmbedReply:
        return _reply(done, embeddings, texts, version)

    encoded = await (render_types(done, kinds, reply) if kinds else render_reply(done.vectors, "float", reply))
    headers = record_usage(request, done.model, len(texts), done.usage, done.timings)
    headers |= answer_headers(request, sum(map(len, texts)), done.usage.tokens)
    return encoded_response(encoded, headers=headers)


def _reply(
    done: Embedded, embeddings: list[msgspec.Raw] | dict[str, list[msgspec.Raw]], texts: list[str], version: str
) -> EmbedReply:
    return EmbedReply(
        id=str(uuid.uuid4()),
        embeddings=embeddings,
        texts=texts,
        meta=Meta(ApiVersion(version), BilledUnits(input_tokens=done.usage.tokens)),
        response_type="embeddings_by_type" if isinstance(embeddings, dict) else "embeddings_floats",
    )


def _job(body: EmbedV1Request, texts: list[str]) -> EmbedJob:
    if body.input_type is not None and body.input_type not in _ROLES:
        raise _no_input_type()
    if body.truncate not in _TRUNCATE:
        raise errors.InputError(f"truncate must be one of NONE, START, END - received {str(body.truncate)[:50]}")
    on_overflow, keep = _TRUNCATE[body.truncate]
    return EmbedJob(
        model=body.model or None,
        inputs=tuple(texts),
        dimensions=body.output_dimension,
        role=_ROLES[body.input_type] if body.input_type else None,
        max_tokens=body.max_tokens,
        keep=keep,
        on_overflow=on_overflow,
        instruction=body.instruction or None,
    )


def _texts(body: EmbedV1Request) -> list[str]:
    """Take the texts, or those of the inputs' parts. Raises InputError for anything that isn't text."""
    if body.images or body.input_type == "image":
        raise _no_images()
    if body.texts and body.inputs:
        raise errors.InputError("only one of texts, inputs and images may be given")
    texts = body.texts or [_joined(given.content) for given in body.inputs or []]
    if not texts:
        raise errors.EmptyInput("one of texts, inputs and images must be given, and not be empty")
    if len(texts) > MAX_TEXTS:
        raise errors.TooManyItems("texts", len(texts), MAX_TEXTS)
    if "" in texts:
        raise errors.EmptyInput(f"inputs contains an element that is the empty string at index {texts.index('')}")
    return texts


def _joined(parts: Sequence[TextPart]) -> str:
    """Put the parts of one input under each other: Cohere doesn't say how it joins them."""
    if any(part.type != "text" for part in parts):
        raise _no_images()
    return "\n".join(part.text or "" for part in parts)


def _types(said: list[str] | None) -> list[EmbeddingType]:
    for kind in said or []:
        if kind not in TYPES:
            raise errors.InputError(f"embedding_types must be of {', '.join(TYPES)} - received {kind[:50]}")
    return cast("list[EmbeddingType]", list(dict.fromkeys(said or [])))


def _no_input_type() -> errors.InputError:
    return errors.InputError("valid input_type must be provided with the provided model")


def _no_images() -> errors.InputError:
    return errors.InputError("image inputs are not supported by the provided model; send texts")
