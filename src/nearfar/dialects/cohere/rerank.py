"""Cohere's rerank, versions 1 and 2: https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, Struct, UnsetType

from nearfar.core import errors
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.cohere.documents import Document, as_object, text_v1, text_v2, with_text
from nearfar.dialects.cohere.envelope import (
    ANSWER_HEADERS,
    ApiVersion,
    BilledUnits,
    Meta,
    Priority,
    answer_headers,
    check_priority,
    meta_example,
)
from nearfar.dialects.kit.checks import require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.route_docs import NOT_EMPTY, AtLeastOne, NotBlank, RouteDocs, json_schema, requires
from nearfar.serving.service import Service

_MAX_CHUNKS = 10_000
Documents = Annotated[list[Document], json_schema(minItems=1, maxItems=_MAX_CHUNKS - 1)]


class RerankV1Request(Struct, kw_only=True):
    """The body of POST /v1/rerank.

    A document longer than the model's limit is read in up to ``max_chunks_per_doc`` chunks, 10 by default, and the best
    chunk's score counts. ``rank_fields`` selects the fields of documents that are objects, by default ``text``.
    ``instruction`` is our extension: a sentence about what is relevant, for rerankers that are language models.
    """

    model: str | None = None
    query: NotBlank
    documents: Documents
    top_n: AtLeastOne | None = None
    rank_fields: Annotated[list[str], json_schema(minItems=1)] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: AtLeastOne | None = None
    instruction: str | None = None


class RerankV2Request(Struct, kw_only=True):
    """The body of POST /v2/rerank.

    Documents are truncated to ``max_tokens_per_doc``, by default 4096. An object without a ``text`` is read whole.
    ``rank_fields`` and ``return_documents`` left the protocol, but LiteLLM still sends them. ``priority`` orders the
    queue. ``instruction`` is our extension, as in version 1.
    """

    model: str | None = None
    query: NotBlank
    documents: Documents
    top_n: AtLeastOne | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: AtLeastOne | None = None
    priority: Priority | None = None
    instruction: str | None = None


class Result(Struct):
    """One document: its index in the request and its score."""

    index: int
    relevance_score: float
    document: dict[str, Any] | UnsetType = UNSET  # absent unless requested: clients fail on null


class RerankUsage(Struct):
    """Tokens that the model read, under Jina's and OpenAI's names."""

    total_tokens: int
    prompt_tokens: int


class RerankReply(Struct, kw_only=True):
    """The body of a response, best first.

    ``model`` and ``usage`` are for Jina's and vLLM's clients, which send the same body to the same path. Version 1 also
    has ``object`` and, for Voyage's clients, the same results as ``data``.
    """

    id: str
    object: Annotated[str, json_schema(const="list")] | UnsetType = UNSET
    model: str
    results: list[Result]
    data: list[Result] | UnsetType = UNSET
    usage: RerankUsage
    meta: Meta


_MAX_CHUNKS_PER_DOC = 10  # version 1's default
_MAX_TOKENS_PER_DOC = 4096  # version 2's
_TOKENS_PER_CHUNK, _CHUNKS_PER_UNIT = 500, 100  # as Cohere bills

_QUERY, _DOCUMENTS = "Where is the cat?", ["Bananas are yellow.", "The cat sat on the mat."]


_V1 = RouteDocs(
    summary="Documents sorted by how well they answer a query",
    body=RerankV1Request,
    reply=RerankReply,
    example={"query": _QUERY, "documents": _DOCUMENTS},
    examples={
        "objects": {
            "query": _QUERY,
            "documents": [{"title": "Fruit", "body": _DOCUMENTS[0]}, {"title": "Pets", "body": _DOCUMENTS[1]}],
            "rank_fields": ["title", "body"],
            "top_n": 1,
            "return_documents": True,
        }
    },
    reply_example={"object": "list", "meta": meta_example("1", search_units=1)},
    headers=ANSWER_HEADERS,
)
_V2 = RouteDocs(
    summary="Documents sorted by how well they answer a query",
    body=requires(RerankV2Request, model=NOT_EMPTY),
    reply=RerankReply,
    example={"model": "rerank-v3.5", "query": _QUERY, "documents": _DOCUMENTS, "top_n": 2},
    reply_example={"meta": meta_example("2", search_units=1)},
    headers=ANSWER_HEADERS,
)


def _to_job_v1(body: RerankV1Request) -> RankJob:
    if body.rank_fields == []:
        raise errors.EmptyInput("rank_fields cannot be empty")
    _check_positive("max_chunks_per_doc", body.max_chunks_per_doc)
    # Cohere assumes 10 chunks by default, but its clients send more than 1,000 documents, most of one chunk.
    _check_chunks(len(body.documents) * (body.max_chunks_per_doc or 1))
    return RankJob(
        model=body.model or None,
        query=body.query,
        documents=tuple(text_v1(index, document, body.rank_fields) for index, document in enumerate(body.documents)),
        top_n=body.top_n,
        max_chunks_per_document=_MAX_CHUNKS_PER_DOC if body.max_chunks_per_doc is None else body.max_chunks_per_doc,
        instruction=body.instruction or None,
    )


def _to_job_v2(body: RerankV2Request) -> RankJob:
    model = require_model(body.model)
    check_priority(body.priority)
    _check_positive("max_tokens_per_doc", body.max_tokens_per_doc)
    _check_chunks(len(body.documents))
    return RankJob(
        model=model,
        query=body.query,
        documents=tuple(text_v2(index, document, body.rank_fields) for index, document in enumerate(body.documents)),
        top_n=body.top_n,
        max_tokens_per_document=_MAX_TOKENS_PER_DOC if body.max_tokens_per_doc is None else body.max_tokens_per_doc,
        instruction=body.instruction or None,
    )


def _check_positive(param: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise errors.InputError(f"{param} must be at least 1, not {value}", param)


def _check_chunks(chunks: int) -> None:
    if chunks >= _MAX_CHUNKS:
        raise errors.TooManyItems("documents", chunks, _MAX_CHUNKS)


def _reply_v1(body: RerankV1Request, job: RankJob, done: Ranked) -> RerankReply:
    results = [
        Result(found.index, found.score, as_object(body.documents[found.index]) if body.return_documents else UNSET)
        for found in done.results
    ]
    reply = _build_reply(job, done, results, version="1")
    reply.object, reply.data = "list", results
    return reply


def _reply_v2(body: RerankV2Request, job: RankJob, done: Ranked) -> RerankReply:
    results = [
        Result(
            found.index,
            found.score,
            with_text(body.documents[found.index], job.documents[found.index]) if body.return_documents else UNSET,
        )
        for found in done.results
    ]
    return _build_reply(job, done, results, version="2")


def _build_reply(job: RankJob, done: Ranked, results: list[Result], *, version: str) -> RerankReply:
    units = BilledUnits(search_units=_search_units(done.document_tokens, job))
    return RerankReply(
        id=str(uuid.uuid4()),
        model=done.info.name,
        results=results,
        usage=RerankUsage(done.usage.tokens, done.usage.tokens),
        meta=Meta(ApiVersion(version), units),
    )


def _search_units(document_tokens: Sequence[int], job: RankJob) -> int:
    """Count as Cohere bills: a unit is a query with up to 100 chunks, each of up to 500 tokens with the query.

    Only what the model reads of a document counts.
    """
    max_tokens = job.max_tokens_per_document or math.inf
    max_chunks = job.max_chunks_per_document or math.inf
    chunks = sum(
        min(max(math.ceil(min(tokens, max_tokens) / _TOKENS_PER_CHUNK), 1), max_chunks) for tokens in document_tokens
    )
    return math.ceil(chunks / _CHUNKS_PER_UNIT)


RERANK_V1 = Endpoint(_V1, _to_job_v1, Service.rank, _reply_v1, headers=answer_headers)
RERANK_V2 = Endpoint(
    _V2, _to_job_v2, Service.rank, _reply_v2, headers=answer_headers, priority=lambda body: body.priority
)
