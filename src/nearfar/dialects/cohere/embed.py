"""Cohere's embed, versions 1 and 2, for texts: https://docs.cohere.com/reference/embed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import msgspec
from litestar import Request, Response, post
from msgspec import Struct

from nearfar import errors
from nearfar.dialects import encoded_response, report, service_of
from nearfar.dialects.cohere.envelope import Meta, meta_example, named
from nearfar.dialects.described import (
    BASE64,
    NOT_EMPTY,
    NUMBERS,
    AtLeastOne,
    NotEmpty,
    Numbers,
    described,
    documented,
    needing,
)
from nearfar.dialects.reading import read_request, while_connected
from nearfar.dialects.vectors import EmbeddingType, render_reply, render_types
from nearfar.jobs import EmbedJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.config import OnOverflow
    from nearfar.jobs import Embedded
    from nearfar.types import Keep, Role

# Cohere takes 96. Version 1's client cuts its lists to that and version 2's doesn't, so more can only help.
_MAX_TEXTS = 2048
_ROLES: dict[str, Role] = {
    "search_document": "document",
    "search_query": "query",
    "classification": "classification",
    "clustering": "clustering",
}
_TYPES = [kind for union in get_args(EmbeddingType) for kind in get_args(union)]
_ITEMS = {"float": NUMBERS, "base64": BASE64}
_WHOLE: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": -128, "maximum": 255}}
_BY_TYPE = {kind: {"type": "array", "items": _ITEMS.get(kind, _WHOLE)} for kind in _TYPES}
_Count = documented(minItems=1, maxItems=_MAX_TEXTS)
_TRUNCATE: dict[str | None, tuple[OnOverflow | None, Keep]] = {
    None: (None, "start"),  # Cohere's default is END, and so is ours, unless the operator has said otherwise
    "NONE": ("error", "start"),
    "START": ("truncate", "end"),
    "END": ("truncate", "start"),
}


class Part(Struct):
    """A part of an input; images aren't served."""

    type: Annotated[str, documented(const="text")]
    text: str | None = None


class Input(Struct):
    """An input made of parts, which together must not be empty."""

    content: list[Part]


class EmbedRequest(Struct, kw_only=True):
    """The body of both versions; the first leaves more out. Null means absent; fields not named here are ignored.

    ``instruction`` is ours: what is looked for, in a sentence, for models that take one before queries.
    """

    model: str | None = None
    texts: Annotated[list[NotEmpty], _Count] | None = None
    inputs: Annotated[list[Input], _Count] | None = None
    images: Annotated[list[str], documented(maxItems=0)] | None = None
    input_type: Annotated[str, documented(enum=[*_ROLES])] | None = None
    embedding_types: list[Annotated[str, documented(enum=_TYPES)]] | None = None
    truncate: Annotated[str, documented(enum=["NONE", "START", "END"])] | None = None
    output_dimension: AtLeastOne | None = None
    max_tokens: AtLeastOne | None = None
    instruction: str | None = None


class EmbedReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request: plain lists of floats, or vectors by their type."""

    id: str
    embeddings: list[Numbers] | Annotated[dict[str, list[msgspec.Raw]], documented(properties=_BY_TYPE)]
    texts: list[str]
    meta: Meta
    response_type: Literal["embeddings_floats", "embeddings_by_type"]


_decoder = msgspec.json.Decoder(EmbedRequest)
_LIST, _NONE = {"type": "array"}, {"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]}
_ONE_OF = documented(
    anyOf=[
        {"required": ["texts"], "properties": {"texts": _LIST, "inputs": _NONE}},
        {"required": ["inputs"], "properties": {"inputs": _LIST, "texts": _NONE}},
    ]
)


def _replied(version: str, embeddings: object) -> dict[str, object]:
    """Give what the OpenAPI document shows."""
    return {
        "id": "7e3d5b1c-4a52-4f0e-9a53-2c8a3d1f0b6e",
        "embeddings": embeddings,
        "texts": ["a cat on the sofa"],
        "meta": meta_example(version, input_tokens=7),
        "response_type": "embeddings_by_type" if isinstance(embeddings, dict) else "embeddings_floats",
    }


_V1 = described(
    "Vectors of texts",
    body=Annotated[EmbedRequest, _ONE_OF],
    reply=EmbedReply,
    example={"model": "embed-english-v3.0", "texts": ["a cat on the sofa"], "input_type": "search_document"},
    reply_example=_replied("1", [[0.1431, -0.0766, -0.0241]]),
)
_V2 = described(
    "Vectors of texts, by type",
    body=Annotated[needing(EmbedRequest, model=NOT_EMPTY, input_type={"type": "string"}), _ONE_OF],
    reply=EmbedReply,
    example={"model": "embed-v4.0", "texts": ["a cat on the sofa"], "input_type": "search_document"},
    examples={
        "bytes of inputs": {
            "model": "embed-v4.0",
            "inputs": [{"content": [{"type": "text", "text": "a cat on the sofa"}]}],
            "input_type": "search_query",
            "embedding_types": ["int8", "float"],
            "output_dimension": 256,
        }
    },
    reply_example=_replied("2", {"float": [[0.1431, -0.0766, -0.0241]]}),
)


@post(
    ["/v1/embed", "/v1/v1/embed"],
    status_code=200,
    opt=_V1,
)
async def embed_v1(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _decoder)
    return await _answer(request, body, body.model or None, _types(body.embedding_types), version="1")


@post(
    ["/v2/embed", "/v1/v2/embed"],
    status_code=200,
    opt=_V2,
)
async def embed_v2(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _decoder)
    model = named(body.model)
    if body.input_type is None:
        raise _no_input_type()
    return await _answer(request, body, model, _types(body.embedding_types) or ["float"], version="2")


async def _answer(
    request: Request[Any, Any, Any],
    body: EmbedRequest,
    model: str | None,
    kinds: Sequence[EmbeddingType],
    *,
    version: str,
) -> Response[bytes]:
    """Embed, and answer with these types, or with plain lists of floats for none."""
    texts = _texts(body)
    done = await while_connected(request, service_of(request).embed(_job(body, model, texts)))

    def reply(embeddings: list[msgspec.Raw] | dict[str, list[msgspec.Raw]]) -> EmbedReply:
        return _reply(done, embeddings, texts, version)

    encoded = await (render_types(done, kinds, reply) if kinds else render_reply(done.vectors, "float", reply))
    return encoded_response(encoded, headers=report(request, done.model, len(texts), done.usage))


def _reply(
    done: Embedded, embeddings: list[msgspec.Raw] | dict[str, list[msgspec.Raw]], texts: list[str], version: str
) -> EmbedReply:
    return EmbedReply(
        id=str(uuid.uuid4()),
        embeddings=embeddings,
        texts=texts,
        meta=Meta({"version": version}, {"input_tokens": done.usage.tokens}),
        response_type="embeddings_by_type" if isinstance(embeddings, dict) else "embeddings_floats",
    )


def _job(body: EmbedRequest, model: str | None, texts: list[str]) -> EmbedJob:
    if body.input_type is not None and body.input_type not in _ROLES:
        raise _no_input_type()
    if body.truncate not in _TRUNCATE:
        raise errors.InputError(f"truncate must be one of NONE, START, END - received {str(body.truncate)[:50]}")
    on_overflow, keep = _TRUNCATE[body.truncate]
    return EmbedJob(
        model=model,
        inputs=tuple(texts),
        dimensions=body.output_dimension,
        role=_ROLES[body.input_type] if body.input_type else None,
        max_tokens=body.max_tokens,
        keep=keep,
        on_overflow=on_overflow,
        instruction=body.instruction or None,
    )


def _texts(body: EmbedRequest) -> list[str]:
    """Take the texts, or those of the inputs' parts. Raises InputError for anything that isn't text."""
    if body.images or body.input_type == "image":
        raise _no_images()
    if body.texts and body.inputs:
        raise errors.InputError("only one of texts, inputs and images may be given")
    texts = body.texts or [_joined(given.content) for given in body.inputs or []]
    if not texts:
        raise errors.EmptyInput("one of texts, inputs and images must be given, and not be empty")
    if len(texts) > _MAX_TEXTS:
        raise errors.TooMany("texts", len(texts), _MAX_TEXTS)
    if "" in texts:
        raise errors.EmptyInput(f"inputs contains an element that is the empty string at index {texts.index('')}")
    return texts


def _joined(parts: Sequence[Part]) -> str:
    """Put the parts of one input under each other: Cohere doesn't say how it joins them."""
    if any(part.type != "text" for part in parts):
        raise _no_images()
    return "\n".join(part.text or "" for part in parts)


def _types(said: list[str] | None) -> list[EmbeddingType]:
    for kind in said or []:
        if kind not in _TYPES:
            raise errors.InputError(f"embedding_types must be of {', '.join(_TYPES)} - received {kind[:50]}")
    return cast("list[EmbeddingType]", list(dict.fromkeys(said or [])))


def _no_input_type() -> errors.InputError:
    return errors.InputError("valid input_type must be provided with the provided model")


def _no_images() -> errors.InputError:
    return errors.InputError("image inputs are not supported by the provided model; send texts")
