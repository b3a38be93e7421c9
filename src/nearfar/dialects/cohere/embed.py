"""Cohere's embed, versions 1 and 2, of texts: https://docs.cohere.com/reference/embed.

What the decoder accepts and Cohere refuses is refused where the body becomes a job, in Cohere's words.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, cast, get_args

import msgspec
from msgspec import Struct

from nearfar.core import errors
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.types import Role
from nearfar.dialects.cohere.envelope import ANSWER_HEADERS, Meta, Priority, answer_headers, check_priority, meta
from nearfar.dialects.kit.checks import TRUNCATE, check_at_most, require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import EmbeddingType, render_rows, render_types
from nearfar.dialects.kit.route_docs import (
    BASE64,
    NOT_EMPTY,
    NUMBERS,
    AtLeastOne,
    NotEmpty,
    Numbers,
    RouteDocs,
    json_schema,
    requires,
)
from nearfar.serving.service import Service

# Cohere takes 96. Version 1's client cuts its lists to that and version 2's doesn't: more only helps.
_MAX_TEXTS = 2048
_TYPES = [kind for union in get_args(EmbeddingType) for kind in get_args(union)]
EMBEDDERS = (
    "embed-v5.0-fast",
    "embed-v4.0",
    "embed-english-v3.0",
    "embed-english-light-v3.0",
    "embed-multilingual-v3.0",
    "embed-multilingual-light-v3.0",
    "embed-english-v2.0",
    "embed-english-light-v2.0",
    "embed-multilingual-v2.0",
)
_ROLES: dict[str, Role] = {
    "search_document": "document",
    "search_query": "query",
    "classification": "classification",
    "clustering": "clustering",
}


class TextPart(Struct):
    """A part of an input. Cohere's may be images too, which no served model supports."""

    type: Annotated[str, json_schema(const="text")]
    text: NotEmpty | None = None


_SomeText = requires(TextPart, text=NOT_EMPTY)


class Input(Struct):
    """One text in parts."""

    content: Annotated[list[_SomeText], json_schema(minItems=1)]  # type: ignore[valid-type]


_COUNT = json_schema(minItems=1, maxItems=_MAX_TEXTS)
_LIST, _NONE = {"type": "array"}, {"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]}
_ONE_OF = json_schema(
    anyOf=[
        {"required": ["texts"], "properties": {"texts": _LIST, "inputs": _NONE}},
        {"required": ["inputs"], "properties": {"inputs": _LIST, "texts": _NONE}},
    ]
)


class EmbedV1Request(Struct, kw_only=True):
    """The body of POST /v1/embed: one of ``texts`` and ``inputs`` must be there.

    ``instruction`` is our extension: a sentence about what is relevant, for models that take one before queries.
    """

    model: str | None = None
    texts: Annotated[list[NotEmpty], _COUNT] | None = None
    inputs: Annotated[list[Input], _COUNT] | None = None
    images: Annotated[list[str], json_schema(maxItems=0)] | None = None
    input_type: Annotated[str | None, json_schema(enum=[*_ROLES, None])] = None
    embedding_types: list[Annotated[str, json_schema(enum=_TYPES)]] | None = None
    truncate: Annotated[str | None, json_schema(enum=list(TRUNCATE))] = None
    output_dimension: AtLeastOne | None = None
    max_tokens: AtLeastOne | None = None
    instruction: str | None = None


class EmbedV2Request(EmbedV1Request, kw_only=True):
    """The body of POST /v2/embed: version 1's, and ``priority``, which orders the queue."""

    priority: Priority | None = None


_WHOLE: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": -128, "maximum": 255}}
_ITEMS = {"float": NUMBERS, "base64": BASE64}
_BY_TYPE = {kind: {"type": "array", "items": _ITEMS.get(kind, _WHOLE)} for kind in _TYPES}


class EmbedReply(Struct, kw_only=True):
    """The body of a response: vectors of each type, or in version 1 plain lists of numbers."""

    id: str
    embeddings: list[Numbers] | Annotated[dict[str, list[msgspec.Raw]], json_schema(properties=_BY_TYPE)]
    texts: list[str]
    meta: Meta
    response_type: Annotated[str, json_schema(enum=["embeddings_floats", "embeddings_by_type"])]


_EXAMPLE = {"model": "embed-v4.0", "texts": ["a cat on the sofa"], "input_type": "search_document"}


_V1 = RouteDocs(
    summary="Vectors of texts",
    answers=("vectors",),
    body=Annotated[EmbedV1Request, _ONE_OF],
    reply=EmbedReply,
    example=_EXAMPLE,
    examples={"by type": _EXAMPLE | {"embedding_types": ["float", "int8"]}},
    reply_example={"meta": meta("1", input_tokens=7)},
    headers=ANSWER_HEADERS,
)
_V2 = RouteDocs(
    summary="Vectors of texts, by type",
    answers=("vectors",),
    body=Annotated[requires(EmbedV2Request, model=NOT_EMPTY), _ONE_OF],
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
    reply_example={
        "embeddings": {"float": [[0.1431, -0.0766, -0.0241]]},
        "meta": meta("2", input_tokens=7),
        "response_type": "embeddings_by_type",
    },
    headers=ANSWER_HEADERS,
)


def _to_job(body: EmbedV1Request) -> EmbedJob:
    _types(body.embedding_types)
    texts = _texts(body)
    if body.input_type is not None and body.input_type not in _ROLES:
        raise _no_input_type()
    if body.truncate not in TRUNCATE:
        raise errors.InputError(f"truncate must be one of NONE, START, END - received {str(body.truncate)[:50]}")
    # Cohere's default is END; so is ours, unless the operator's setting differs.
    on_overflow, keep = TRUNCATE[body.truncate]
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


def _to_job_v2(body: EmbedV2Request) -> EmbedJob:
    if require_model(body.model) in EMBEDDERS and body.input_type is None:
        raise _no_input_type()  # Cohere's models need it; vLLM, which has this path, does without
    check_priority(body.priority)
    return _to_job(body)


def _texts(body: EmbedV1Request) -> list[str]:
    """Return the texts, or those of the inputs' parts. Raises InputError for anything that isn't text."""
    if body.images or body.input_type == "image":
        raise _no_images()
    if body.texts and body.inputs:
        raise errors.InputError("only one of texts, inputs and images may be given")
    texts = body.texts or [_joined(input_.content) for input_ in body.inputs or []]
    if not texts:
        raise errors.EmptyInput("one of texts, inputs and images must be given, and not be empty")
    check_at_most(_MAX_TEXTS, "texts", texts)
    if "" in texts:
        raise errors.EmptyInput(f"inputs contains an element that is the empty string at index {texts.index('')}")
    return texts


def _joined(parts: Sequence[TextPart]) -> str:
    """Join the parts of one input by line breaks; Cohere doesn't document how it joins them."""
    if any(part.type != "text" for part in parts):
        raise _no_images()
    return "\n".join(part.text or "" for part in parts)


def _types(names: list[str] | None) -> list[EmbeddingType]:
    for kind in names or []:
        if kind not in _TYPES:
            raise errors.InputError(f"embedding_types must be of {', '.join(_TYPES)} - received {kind[:50]}")
    return cast("list[EmbeddingType]", list(dict.fromkeys(names or [])))


def _no_input_type() -> errors.InputError:
    return errors.InputError("valid input_type must be provided with the provided model")


def _no_images() -> errors.InputError:
    return errors.InputError("image inputs are not supported by the provided model; send texts")


def _reply(version: str, body: EmbedV1Request, job: EmbedJob, done: Embedded) -> EmbedReply:
    """Build the reply: vectors by type, or in version 1 plain lists of floats where no types were asked for."""
    kinds = _types(body.embedding_types) or (["float"] if version == "2" else [])
    return EmbedReply(
        id=str(uuid.uuid4()),
        embeddings=render_types(done, kinds) if kinds else render_rows(done),
        texts=[str(text) for text in job.inputs],
        meta=meta(version, input_tokens=done.usage.tokens),
        response_type="embeddings_by_type" if kinds else "embeddings_floats",
    )


EMBED_V1 = Endpoint(_V1, _to_job, Service.embed, partial(_reply, "1"), headers=answer_headers)
EMBED_V2 = Endpoint(
    _V2, _to_job_v2, Service.embed, partial(_reply, "2"), headers=answer_headers, priority=lambda body: body.priority
)
