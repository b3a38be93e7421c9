"""embed-rerank's reranking for OpenAI's clients."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.embed_rerank.info import HEADERS, process_time
from nearfar.dialects.embed_rerank.rerank import PASSAGES, QUERY, Passages, texts_of
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.route_docs import NotBlank, RouteDocs
from nearfar.serving.service import Service


class OpenAIRerankRequest(Struct, kw_only=True):
    """The body of POST /v1/openai/rerank. Without ``top_n``, or with 0, all documents are returned."""

    query: NotBlank
    documents: Passages
    top_n: int | None = None
    return_documents: bool | None = None
    model: str | None = None
    instruction: str | None = None


class OpenAIRanked(Struct, kw_only=True, omit_defaults=True):
    """A document's index and score; with ``return_documents`` also the document."""

    index: int
    score: float
    document: str | UnsetType = UNSET


class OpenAIUsage(Struct, kw_only=True):
    """The documents and tokens of an answer."""

    total_passages: int
    returned_passages: int
    prompt_tokens: int
    total_tokens: int


class OpenAIRerankReply(Struct, kw_only=True):
    """The body of an answer to POST /v1/openai/rerank, best first."""

    object: str = "list"
    data: list[OpenAIRanked]
    model: str
    usage: OpenAIUsage


_OPENAI = RouteDocs(
    summary="Rank documents by relevance to a query, as in embed-rerank's routes for OpenAI's clients",
    answers=("scores",),
    body=OpenAIRerankRequest,
    reply=OpenAIRerankReply,
    example={"query": QUERY, "documents": PASSAGES, "top_n": 1, "return_documents": True},
    headers=HEADERS,
)


def _openai_job(body: OpenAIRerankRequest) -> RankJob:
    return RankJob(
        model=body.model or None,
        query=body.query,
        documents=texts_of(body.documents),
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
        model=done.info.name,
        usage=OpenAIUsage(
            total_passages=len(documents),
            returned_passages=len(done.results),
            prompt_tokens=done.usage.tokens,
            total_tokens=done.usage.tokens,
        ),
    )


OPENAI_RERANK = Endpoint(_OPENAI, _openai_job, Service.rank, _openai_reply, headers=process_time)
