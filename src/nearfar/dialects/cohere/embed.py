"""Cohere's embed, versions 1 and 2, of texts: https://docs.cohere.com/reference/embed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, cast

import msgspec

from nearfar.core import errors
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.settings import OnOverflow
from nearfar.core.types import KeepSide, Role
from nearfar.dialects.cohere.bodies import (
    MAX_TEXTS,
    ONE_OF,
    TYPES,
    EmbedReply,
    EmbedV1Request,
    EmbedV2Request,
    TextPart,
)
from nearfar.dialects.cohere.envelope import (
    ANSWER_HEADERS,
    ApiVersion,
    BilledUnits,
    Meta,
    check_priority,
    embed_headers,
    meta_example,
    model_name,
)
from nearfar.dialects.kit.declare import endpoint
from nearfar.dialects.kit.rendering import EmbeddingType, render_rows, render_types
from nearfar.dialects.kit.route_docs import NOT_EMPTY, RouteDocs, requires
from nearfar.serving.service import Service

_ROLES: dict[str, Role] = {
    "search_document": "document",
    "search_query": "query",
    "classification": "classification",
    "clustering": "clustering",
}
_TRUNCATE: dict[str | None, tuple[OnOverflow | None, KeepSide]] = {
    None: (None, "start"),  # Cohere's default is END; so is ours, unless the operator's setting differs
    "NONE": ("error", "start"),
    "START": ("truncate", "end"),
    "END": ("truncate", "start"),
}
_EXAMPLE = {"model": "embed-v4.0", "texts": ["a cat on the sofa"], "input_type": "search_document"}


_V1 = RouteDocs(
    summary="Vectors of texts",
    body=Annotated[EmbedV1Request, ONE_OF],
    reply=EmbedReply,
    example=_EXAMPLE,
    examples={"by type": _EXAMPLE | {"embedding_types": ["float", "int8"]}},
    reply_example={"meta": meta_example("1", input_tokens=7)},
    headers=ANSWER_HEADERS,
)
_V2 = RouteDocs(
    summary="Vectors of texts, by type",
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
    reply_example={
        "embeddings": {"float": [[0.1431, -0.0766, -0.0241]]},
        "meta": meta_example("2", input_tokens=7),
        "response_type": "embeddings_by_type",
    },
    headers=ANSWER_HEADERS,
)


def _to_job(body: EmbedV1Request) -> EmbedJob:
    _types(body.embedding_types)
    texts = _texts(body)
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


def _to_job_v2(body: EmbedV2Request) -> EmbedJob:
    model_name(body.model)
    if body.input_type is None:
        raise _no_input_type()
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
    if len(texts) > MAX_TEXTS:
        raise errors.TooManyItems("texts", len(texts), MAX_TEXTS)
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
        if kind not in TYPES:
            raise errors.InputError(f"embedding_types must be of {', '.join(TYPES)} - received {kind[:50]}")
    return cast("list[EmbeddingType]", list(dict.fromkeys(names or [])))


def _no_input_type() -> errors.InputError:
    return errors.InputError("valid input_type must be provided with the provided model")


def _no_images() -> errors.InputError:
    return errors.InputError("image inputs are not supported by the provided model; send texts")


def _reply(body: EmbedV1Request, job: EmbedJob, done: Embedded) -> EmbedReply:
    """Build version 1's reply: vectors by type, or plain lists of floats where no types were asked for."""
    kinds = _types(body.embedding_types)
    embeddings = render_types(done, kinds) if kinds else render_rows(done)
    return _build_reply(job, done, embeddings, version="1")


def _reply_v2(body: EmbedV2Request, job: EmbedJob, done: Embedded) -> EmbedReply:
    return _build_reply(job, done, render_types(done, _types(body.embedding_types) or ["float"]), version="2")


def _build_reply(
    job: EmbedJob, done: Embedded, embeddings: list[msgspec.Raw] | dict[str, list[msgspec.Raw]], *, version: str
) -> EmbedReply:
    return EmbedReply(
        id=str(uuid.uuid4()),
        embeddings=embeddings,
        texts=[str(text) for text in job.inputs],
        meta=Meta(ApiVersion(version), BilledUnits(input_tokens=done.usage.tokens)),
        response_type="embeddings_by_type" if isinstance(embeddings, dict) else "embeddings_floats",
    )


EMBED_V1 = endpoint(_V1, _to_job, Service.embed, _reply, headers=embed_headers)
EMBED_V2 = endpoint(
    _V2, _to_job_v2, Service.embed, _reply_v2, headers=embed_headers, priority=lambda body: body.priority
)
