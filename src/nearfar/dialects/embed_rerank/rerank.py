"""embed-rerank's reranking: one query, several queries, and its route for OpenAI's clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, post
from msgspec import UNSET, UnsetType

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import Ranked, RankJob, Usage
from nearfar.dialects.embed_rerank.bodies import (
    DocumentObject,
    OpenAIRanked,
    OpenAIRerankReply,
    OpenAIRerankRequest,
    OpenAIUsage,
    RankedPassage,
    RerankReply,
    RerankRequest,
    RerankUsage,
)
from nearfar.dialects.embed_rerank.info import process_time, ranking_method
from nearfar.dialects.embed_rerank.route_docs import BATCH, OPENAI, RERANK
from nearfar.dialects.kit.declare import endpoint
from nearfar.dialects.kit.endpoint import json_response, record_usage
from nearfar.dialects.kit.request import AnyRequest, caller_of, cancel_on_disconnect, read_request, service_of
from nearfar.serving.service import Service

_DEFAULT_TOP_K = 10  # as in embed-rerank
_rerank = msgspec.json.Decoder(RerankRequest)
_batch = msgspec.json.Decoder(list[RerankRequest])


@post("/api/v1/rerank", status_code=200, opt=RERANK)
async def rerank(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _rerank)
    job = _to_job(body)
    reply, done = await cancel_on_disconnect(request, _rank(request, body, job))
    headers = record_usage(request, done.model, len(job.documents), done.usage, done.timings)
    return json_response(reply, headers=headers | process_time(request))


@post("/api/v1/rerank/batch", status_code=200, opt=BATCH)
async def rerank_batch(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer several queries, each with its own passages, concurrently."""
    bodies = await read_request(request, _batch)
    if not bodies:
        raise EmptyInput("the list of requests cannot be empty")
    jobs = [_to_job(body) for body in bodies]
    answers = await cancel_on_disconnect(request, _rank_all(request, bodies, jobs))
    usages = [done.usage for _, done in answers]
    total = Usage(
        tokens=sum(usage.tokens for usage in usages), truncated_tokens=sum(usage.truncated_tokens for usage in usages)
    )
    longest = max((done.timings for _, done in answers), key=lambda timings: timings.total_s)
    headers = record_usage(request, answers[0][1].model, sum(len(job.documents) for job in jobs), total, longest)
    return json_response([reply for reply, _ in answers], headers=headers | process_time(request))


async def _rank_all(
    request: AnyRequest, bodies: Sequence[RerankRequest], jobs: Sequence[RankJob]
) -> list[tuple[RerankReply, Ranked]]:
    """Rank for several queries concurrently. If one fails, the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_rank(request, body, job)) for body, job in zip(bodies, jobs, strict=True)]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


async def _rank(request: AnyRequest, body: RerankRequest, job: RankJob) -> tuple[RerankReply, Ranked]:
    began = time.perf_counter()
    service, caller = service_of(request), caller_of(request.scope)
    info = await service.prepare(job.model, "rank", caller)
    done = await service.rank(job, caller)
    seconds = time.perf_counter() - began
    texts = [UNSET] * len(job.documents) if body.return_documents is False else job.documents
    reply = RerankReply(
        results=[
            RankedPassage(text=texts[result.index], score=result.score, index=result.index) for result in done.results
        ],
        query=job.query,
        backend=info.engine,
        device=info.device,
        method=ranking_method(info),
        processing_time=seconds,
        model_info=done.model,
        usage=RerankUsage(
            total_passages=len(job.documents),
            returned_passages=len(done.results),
            total_tokens=done.usage.tokens,
            processing_time_ms=seconds * 1000,
            backend=info.engine,
            top_k=len(job.documents) if job.top_n is None else job.top_n,
            query_length=len(job.query),
        ),
        timestamp=datetime.now(UTC).isoformat(),
        num_passages=len(done.results),
    )
    return reply, done


def _to_job(body: RerankRequest) -> RankJob:
    passages = body.documents if body.passages is None else body.passages
    if passages is None:
        raise InputError("passages is required, or documents", "passages")
    return RankJob(
        model=body.model or None,
        query=body.query.strip(),
        documents=_texts(passages),
        top_n=_top_n(body.top_n if body.top_k is UNSET else body.top_k, len(passages)),
        instruction=body.instruction or None,
    )


def _top_n(top_k: int | UnsetType | None, count: int) -> int | None:
    """Return the number of results; None for all."""
    if top_k is None:
        return None
    return min(_DEFAULT_TOP_K if isinstance(top_k, UnsetType) else top_k, max(count, 1))


def _texts(documents: Sequence[str | DocumentObject]) -> tuple[str, ...]:
    return tuple(_text(index, document) for index, document in enumerate(documents))


def _text(index: int, document: str | DocumentObject) -> str:
    """Return a document's text. Raises EmptyInput if it has none."""
    if isinstance(document, DocumentObject):
        text = document.text or document.content or document.body or document.value
        if not text:
            raise EmptyInput(
                f"Document at index {index} must be a string or an object with a text, content, body or value",
                "documents",
            )
    else:
        text = document
    if not text.strip():
        raise EmptyInput(f"Passage at index {index} cannot be empty or whitespace only", "passages")
    return text


def _openai_job(body: OpenAIRerankRequest) -> RankJob:
    return RankJob(
        model=body.model or None,
        query=body.query,
        documents=_texts(body.documents),
        top_n=body.top_n if body.top_n and body.top_n > 0 else None,
        instruction=body.instruction or None,
    )


def _openai_reply(body: OpenAIRerankRequest, job: RankJob, done: Ranked) -> OpenAIRerankReply:
    documents = job.documents if body.return_documents else [UNSET] * len(job.documents)
    return OpenAIRerankReply(
        data=[
            OpenAIRanked(index=result.index, score=result.score, document=documents[result.index])
            for result in done.results
        ],
        model=done.model,
        usage=OpenAIUsage(
            total_passages=len(documents),
            returned_passages=len(done.results),
            prompt_tokens=done.usage.tokens,
            total_tokens=done.usage.tokens,
        ),
    )


rerank_openai = endpoint(
    OPENAI, _openai_job, Service.rank, _openai_reply, headers=lambda request, _, __: process_time(request)
).route("/v1/openai/rerank", "/v1/rerank_openai")
