"""embed-rerank's reranking, one query or several, and what it calls OpenAI's rerank."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post
from msgspec import UNSET, UnsetType

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import RankJob, Usage
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
from nearfar.dialects.embed_rerank.described import BATCH, OPENAI, RERANK
from nearfar.dialects.embed_rerank.info import method_of
from nearfar.dialects.kit.base import json_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.jobs import Ranked
    from nearfar.dialects.kit.base import AnyRequest

_TOP_K = 10  # embed-rerank's default
_rerank = msgspec.json.Decoder(RerankRequest)
_batch = msgspec.json.Decoder(list[RerankRequest])
_openai = msgspec.json.Decoder(OpenAIRerankRequest)


@post("/api/v1/rerank", status_code=200, opt=RERANK)
async def rerank(request: Request[Any, Any, Any]) -> Response[bytes]:
    began = time.perf_counter()
    body = await read_request(request, _rerank)
    job = _to_job(body)
    reply, done = await cancel_on_disconnect(request, _answer(request, body, job))
    headers = record_usage(request, done.model, len(job.documents), done.usage, done.timings)
    return json_response(reply, headers=headers | _process_time(began))


@post("/api/v1/rerank/batch", status_code=200, opt=BATCH)
async def batch(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer several queries, each with passages of its own, at once."""
    began = time.perf_counter()
    bodies = await read_request(request, _batch)
    if not bodies:
        raise EmptyInput("the list of requests cannot be empty")
    jobs = [_to_job(body) for body in bodies]
    work = [_answer(request, body, job) for body, job in zip(bodies, jobs, strict=True)]
    answers = await cancel_on_disconnect(request, _together(work))
    usages = [done.usage for _, done in answers]
    both = Usage(
        tokens=sum(usage.tokens for usage in usages), truncated_tokens=sum(usage.truncated_tokens for usage in usages)
    )
    longest = max((done.timings for _, done in answers), key=lambda took: took.total_s)
    headers = record_usage(request, answers[0][1].model, sum(len(job.documents) for job in jobs), both, longest)
    return json_response([reply for reply, _ in answers], headers=headers | _process_time(began))


@post(["/v1/openai/rerank", "/v1/rerank_openai"], status_code=200, opt=OPENAI)
async def openai(request: Request[Any, Any, Any]) -> Response[bytes]:
    began = time.perf_counter()
    body = await read_request(request, _openai)
    texts = _texts(body.documents)
    job = RankJob(
        model=body.model or None,
        query=body.query,
        documents=texts,
        top_n=body.top_n if body.top_n and body.top_n > 0 else None,
        instruction=body.instruction or None,
    )
    done = await cancel_on_disconnect(request, service_of(request).rank(job, caller_of(request.scope)))
    reply = OpenAIRerankReply(
        data=[
            OpenAIRanked(
                index=found.index, score=found.score, document=texts[found.index] if body.return_documents else UNSET
            )
            for found in done.results
        ],
        model=done.model,
        usage=OpenAIUsage(
            total_passages=len(texts),
            returned_passages=len(done.results),
            prompt_tokens=done.usage.tokens,
            total_tokens=done.usage.tokens,
        ),
    )
    return json_response(
        reply, headers=record_usage(request, done.model, len(texts), done.usage, done.timings) | _process_time(began)
    )


async def _together(work: Sequence[Any]) -> list[tuple[RerankReply, Ranked]]:
    """Do all of it at once. Where one fails the others are given up, and what is raised is that one's error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


async def _answer(request: AnyRequest, body: RerankRequest, job: RankJob) -> tuple[RerankReply, Ranked]:
    began = time.perf_counter()
    service, caller = service_of(request), caller_of(request.scope)
    info = await service.prepare(job.model, "rank", caller)
    done = await service.rank(job, caller)
    took_s = time.perf_counter() - began
    is_told = body.return_documents is not False
    reply = RerankReply(
        results=[
            RankedPassage(text=job.documents[found.index] if is_told else UNSET, score=found.score, index=found.index)
            for found in done.results
        ],
        query=job.query,
        backend=info.engine,
        device=info.device,
        method=method_of(info),
        processing_time=took_s,
        model_info=done.model,
        usage=RerankUsage(
            total_passages=len(job.documents),
            returned_passages=len(done.results),
            total_tokens=done.usage.tokens,
            processing_time_ms=took_s * 1000,
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
        top_n=_top_k(body.top_n if body.top_k is UNSET else body.top_k, len(passages)),
        instruction=body.instruction or None,
    )


def _top_k(said: int | UnsetType | None, count: int) -> int | None:
    """Give how many are wanted; None for all."""
    return None if said is None else min(_TOP_K if isinstance(said, UnsetType) else said, max(count, 1))


def _texts(documents: Sequence[str | DocumentObject]) -> tuple[str, ...]:
    return tuple(_text(index, one) for index, one in enumerate(documents))


def _text(index: int, document: str | DocumentObject) -> str:
    """Take a document's text. Raises EmptyInput where it has none."""
    if isinstance(document, DocumentObject):
        found = document.text or document.content or document.body or document.value
        if not found:
            raise EmptyInput(
                f"Document at index {index} must be a string or an object with a text, content, body or value",
                "documents",
            )
        document = found
    if not document.strip():
        raise EmptyInput(f"Passage at index {index} cannot be empty or whitespace only", "passages")
    return document


def _process_time(began: float) -> dict[str, str]:
    return {"x-process-time": f"{time.perf_counter() - began:.6f}"}
