"""Cohere's rerank, versions 1 and 2: https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post
from msgspec import UNSET, UnsetType

from nearfar.core import errors
from nearfar.core.jobs import RankJob
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
    answer_headers,
    meta_example,
    named,
    refuse_priority,
)
from nearfar.dialects.kit.base import json_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request
from nearfar.dialects.kit.route_docs import NOT_EMPTY, RouteDocs, requires

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nearfar.core.caller import Caller
    from nearfar.core.jobs import Ranked
    from nearfar.dialects.cohere.bodies import Document
    from nearfar.dialects.kit.base import AnyRequest

_CHUNKS_A_DOCUMENT = 10  # version 1's default
_TOKENS_A_DOCUMENT = 4096  # version 2's
_TOKENS_A_CHUNK, _CHUNKS_A_UNIT = 500, 100  # as Cohere bills

_QUERY, _DOCUMENTS = "Where is the cat?", ["Bananas are yellow.", "The cat sat on the mat."]
_RESULTS = [{"index": 1, "relevance_score": 0.767}, {"index": 0, "relevance_score": 0.548}]


def _replied(version: str, **more: object) -> dict[str, Any]:
    """Give what the built-in model answers to the examples."""
    return {
        "id": "7e3d5b1c-4a52-4f0e-9a53-2c8a3d1f0b6e",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "results": _RESULTS,
        "usage": {"total_tokens": 22, "prompt_tokens": 22},
        "meta": meta_example(version, search_units=1),
        **more,
    }


RERANK_V1 = RouteDocs(
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
    reply_example=_replied("1", object="list", data=_RESULTS),
    headers=ANSWER_HEADERS,
)
_RERANK_V2 = RouteDocs(
    summary="Documents sorted by how well they answer a query",
    body=requires(RerankV2Request, model=NOT_EMPTY),
    reply=RerankReply,
    example={"model": "rerank-v3.5", "query": _QUERY, "documents": _DOCUMENTS, "top_n": 2},
    reply_example=_replied("2"),
    headers=ANSWER_HEADERS,
)
_v1 = msgspec.json.Decoder(RerankV1Request)
_v2 = msgspec.json.Decoder(RerankV2Request)


@post("/v1/v1/rerank", status_code=200, opt={"docs": RERANK_V1})
async def rerank_v1_doubled(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await rerank_v1(request)


async def rerank_v1(request: AnyRequest) -> Response[bytes]:
    body = await read_request(request, _v1)
    if body.rank_fields == []:
        raise errors.EmptyInput("rank_fields cannot be empty")
    # Cohere assumes 10 chunks where none is said, but its clients send more than 1,000 documents, most of one chunk.
    _refuse_chunks(len(body.documents) * (body.max_chunks_per_doc or 1))
    job = RankJob(
        model=body.model or None,
        query=body.query,
        documents=await _texts(text_v1, body),
        top_n=body.top_n,
        max_chunks_per_document=_CHUNKS_A_DOCUMENT if body.max_chunks_per_doc is None else body.max_chunks_per_doc,
        instruction=body.instruction or None,
    )
    return await _answer(request, caller_of(request.scope), job, body.documents if body.return_documents else None)


@post(["/v2/rerank", "/v1/v2/rerank"], status_code=200, opt={"docs": _RERANK_V2})
async def rerank_v2(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _v2)
    model = named(body.model)
    refuse_priority(body.priority)
    _refuse_chunks(len(body.documents))
    job = RankJob(
        model=model,
        query=body.query,
        documents=await _texts(text_v2, body),
        top_n=body.top_n,
        max_tokens_per_document=_TOKENS_A_DOCUMENT if body.max_tokens_per_doc is None else body.max_tokens_per_doc,
        instruction=body.instruction or None,
    )
    caller = caller_of(request.scope, body.priority)
    return await _answer(request, caller, job, body.documents if body.return_documents else None)


async def _texts(
    read: Callable[[int, Document, Sequence[str] | None], str], body: RerankV1Request | RerankV2Request
) -> tuple[str, ...]:
    """Return the documents' texts. Objects are read in a thread: writing 1,000 as YAML takes tens of milliseconds."""

    def texts() -> tuple[str, ...]:
        return tuple(read(index, given, body.rank_fields) for index, given in enumerate(body.documents))

    return await asyncio.to_thread(texts) if any(isinstance(one, dict) for one in body.documents) else texts()


def _refuse_chunks(chunks: int) -> None:
    if chunks >= MAX_CHUNKS:
        raise errors.TooManyItems("documents", chunks, MAX_CHUNKS)


async def _answer(request: AnyRequest, caller: Caller, job: RankJob, echoed: list[Document] | None) -> Response[bytes]:
    done = await cancel_on_disconnect(request, service_of(request).rank(job, caller))
    characters = len(job.query) + sum(map(len, job.documents))
    headers = record_usage(request, done.model, len(job.documents), done.usage, done.timings)
    headers |= answer_headers(request, characters, done.usage.tokens)
    return json_response(_reply(done, job, echoed), headers=headers)


def _reply(done: Ranked, job: RankJob, echoed: list[Document] | None) -> RerankReply:
    first = job.max_chunks_per_document is not None  # of the two versions

    def given_back(index: int) -> dict[str, Any] | UnsetType:
        if echoed is None:
            return UNSET
        return as_object(echoed[index]) if first else with_text(echoed[index], job.documents[index])

    results = [Result(found.index, found.score, given_back(found.index)) for found in done.results]
    return RerankReply(
        id=str(uuid.uuid4()),
        object="list" if first else UNSET,
        model=done.model,
        results=results,
        data=results if first else UNSET,
        usage=RerankUsage(done.usage.tokens, done.usage.tokens),
        meta=Meta(
            ApiVersion("1" if first else "2"), BilledUnits(search_units=_search_units(done.document_tokens, job))
        ),
    )


def _search_units(document_tokens: Sequence[int], job: RankJob) -> int:
    """Count as Cohere bills: a unit is a query with up to 100 chunks, each of up to 500 tokens with the query.

    No more is counted of a document than is read of it.
    """
    most_tokens = job.max_tokens_per_document or math.inf
    most_chunks = job.max_chunks_per_document or math.inf
    chunks = sum(
        min(max(math.ceil(min(tokens, most_tokens) / _TOKENS_A_CHUNK), 1), most_chunks) for tokens in document_tokens
    )
    return math.ceil(chunks / _CHUNKS_A_UNIT)
