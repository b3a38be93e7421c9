"""Cohere's rerank, versions 1 and 2: https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence

from msgspec import UNSET

from nearfar.core import errors
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.cohere.bodies import (
    MAX_CHUNKS,
    RerankReply,
    RerankUsage,
    RerankV1Request,
    RerankV2Request,
    Result,
)
from nearfar.dialects.cohere.documents import as_object, text_v1, text_v2, with_text
from nearfar.dialects.cohere.envelope import (
    ANSWER_HEADERS,
    ApiVersion,
    BilledUnits,
    Meta,
    check_priority,
    meta_example,
    model_name,
    rank_headers,
)
from nearfar.dialects.kit.declare import endpoint
from nearfar.dialects.kit.route_docs import NOT_EMPTY, RouteDocs, requires
from nearfar.serving.service import Service

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
    model = model_name(body.model)
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
    if chunks >= MAX_CHUNKS:
        raise errors.TooManyItems("documents", chunks, MAX_CHUNKS)


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
        model=done.model,
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


RERANK_V1 = endpoint(_V1, _to_job_v1, Service.rank, _reply_v1, headers=rank_headers)
RERANK_V2 = endpoint(
    _V2, _to_job_v2, Service.rank, _reply_v2, headers=rank_headers, priority=lambda body: body.priority
)
