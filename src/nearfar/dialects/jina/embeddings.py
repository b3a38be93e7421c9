"""Jina's embeddings of texts."""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from msgspec import Struct

from nearfar.core import errors
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.types import Role
from nearfar.dialects.kit.checks import check_at_most, overflow_of, require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import (
    EmbeddingItem,
    EmbeddingList,
    EmbeddingType,
    TokenUsage,
    embedding_list,
    render_types,
)
from nearfar.dialects.kit.route_docs import BASE64, NOT_EMPTY, NUMBERS, AtLeastOne, RouteDocs, json_schema, requires
from nearfar.serving.service import Service

_MAX_INPUTS = 2048  # Jina's own for texts; its multimodal models take fewer

# The ten tasks of models of code become two roles: Jina's own models are served with the prompt for queries or for
# passages, and other models have no prompts of these names.
_ROLES: dict[str, Role] = {
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "text-matching": "similarity",
    "classification": "classification",
    "separation": "clustering",
    "clustering": "clustering",
    **{f"{kind}.query": "query" for kind in ("code", "nl2code", "qa", "code2code", "code2nl", "code2completion")},
    **{f"{kind}.passage": "document" for kind in ("code", "nl2code", "qa", "code2code", "code2nl", "code2completion")},
}
_TYPES: tuple[EmbeddingType, ...] = ("float", "base64", "binary", "ubinary")

OWN_FIELDS = ("task", "late_chunking", "normalized", "embedding_type", "encoding_type")

_Task = Annotated[str, json_schema(enum=list(_ROLES))]
_Type = Annotated[str, json_schema(enum=list(_TYPES))]
_VECTOR: dict[str, Any] = {"anyOf": [NUMBERS, BASE64]}


class JinaText(Struct):
    """A text as an object. Images, sounds and pages are objects without a text, and so are refused."""

    text: str


Document = str | JinaText


class JinaEmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /jina/v1/embeddings. Null means absent; other fields are ignored.

    ``encoding_type`` is LlamaIndex's name for ``embedding_type``, and ``encoding_format`` is OpenAI's.
    """

    model: str | None = None
    input: Document | Annotated[list[Document], json_schema(minItems=1, maxItems=_MAX_INPUTS)]
    task: _Task | None = None
    dimensions: AtLeastOne | None = None
    late_chunking: bool | None = None
    normalized: bool | None = None
    truncate: bool | None = None
    embedding_type: _Type | list[_Type] | None = None
    encoding_type: _Type | list[_Type] | None = None
    encoding_format: _Type | None = None
    return_multivector: Annotated[bool, json_schema(const=False)] | None = None


class JinaEmbedding(EmbeddingItem, kw_only=True):
    """One text's vector, or an object with one vector per type if several were requested."""

    embedding: Annotated[
        msgspec.Raw,
        json_schema(anyOf=[NUMBERS, BASE64, {"type": "object", "additionalProperties": _VECTOR}]),
    ]


class JinaEmbeddingsReply(EmbeddingList[TokenUsage], kw_only=True):
    """The body of a response, in the order of the request."""

    data: list[JinaEmbedding]  # type: ignore[assignment]


_DOCS = RouteDocs(
    summary="Vectors of texts for a task",
    answers=("vectors",),
    body=requires(JinaEmbeddingsRequest, model=NOT_EMPTY),
    reply=JinaEmbeddingsReply,
    example={"model": "jina-embeddings-v3", "task": "retrieval.passage", "input": ["a cat on the sofa", "a dog"]},
)


def _to_job(body: JinaEmbeddingsRequest) -> EmbedJob:
    if body.task is not None and body.task not in _ROLES:
        raise errors.InputError(f"task must be one of {', '.join(_ROLES)}, not {body.task[:50]!r}", "task")
    if body.return_multivector:
        raise errors.InputError("return_multivector: only one vector a text is given here; leave it out")
    found = body.input if isinstance(body.input, list) else [body.input]
    if not found:
        raise errors.EmptyInput("input must not be empty", "input")
    check_at_most(_MAX_INPUTS, "input", found)
    _types(body)
    return EmbedJob(
        model=require_model(body.model),
        inputs=tuple(text_of(document) for document in found),
        dimensions=body.dimensions,
        role=_ROLES[body.task] if body.task is not None else None,
        # Jina refuses a text that is too long unless it may truncate; here the operator's setting decides.
        on_overflow=overflow_of(body.truncate),
        normalize=body.normalized,
        late_chunking=bool(body.late_chunking),
    )


def _types(body: JinaEmbeddingsRequest) -> list[EmbeddingType]:
    """Return the types under any of their names, each once."""
    found = next((value for value in (body.embedding_type, body.encoding_type, body.encoding_format) if value), "float")
    kinds = [found] if isinstance(found, str) else found
    unknown = next((kind for kind in kinds if kind not in _TYPES), None)
    if unknown is not None:
        raise errors.InputError(f"embedding_type must be of {', '.join(_TYPES)}, not {unknown[:50]!r}")
    return cast("list[EmbeddingType]", list(dict.fromkeys(kinds)))


def text_of(document: Document) -> str:
    """Return the document's text."""
    return document if isinstance(document, str) else document.text


def _reply(body: JinaEmbeddingsRequest, _: EmbedJob, done: Embedded) -> EmbeddingList[TokenUsage]:
    rendered = render_types(done, _types(body))
    [vectors, *others] = rendered.values()
    if others:
        each = zip(vectors, *others, strict=True)
        vectors = [msgspec.Raw(msgspec.json.encode(dict(zip(rendered, row, strict=True)))) for row in each]
    return embedding_list(done, vectors, TokenUsage(done.usage.tokens, done.usage.tokens))


EMBEDDINGS = Endpoint(_DOCS, _to_job, Service.embed, _reply)
