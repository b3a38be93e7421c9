"""embed-rerank's reranking, for one query and for several. Null means absent; unknown fields are ignored.

``model`` and ``instruction`` are additions. Without ``model`` the task's default model answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import UNSET, Struct, UnsetType

from nearfar.core.caller import Caller
from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.embed_rerank.info import HEADERS, process_time, ranking_method
from nearfar.dialects.kit.checks import check_at_most
from nearfar.dialects.kit.combined import MAX_JOBS, CombinedResult, combine, run_all
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.route_docs import (
    NOT_BLANK,
    AtLeastOne,
    NotBlank,
    RouteDocs,
    each_item,
    json_schema,
    requires_any,
)
from nearfar.serving.service import Service


class DocumentObject(Struct, kw_only=True):
    """A document as an object. Its text is the first of these fields that isn't empty."""

    text: str | None = None
    content: str | None = None
    body: str | None = None
    value: str | None = None


_NAMES = ("text", "content", "body", "value")
_TEXT_OR_EMPTY: dict[str, Any] = {"anyOf": [NOT_BLANK, {"type": "null"}, {"const": ""}]}
_WITH_TEXT: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(_NAMES, _TEXT_OR_EMPTY),
    "anyOf": [{"required": [name], "properties": {name: NOT_BLANK}} for name in _NAMES],
}
Passages = Annotated[list[str | DocumentObject], json_schema(minItems=1, **each_item(NOT_BLANK, _WITH_TEXT))]
_NOT_EMPTY_LIST: dict[str, Any] = {"type": "array", "minItems": 1}


class RerankRequest(Struct, kw_only=True):
    """The body of POST /api/v1/rerank. ``documents`` and ``top_n`` are other names for ``passages`` and ``top_k``.

    Without ``top_k`` the best 10 are returned, as in embed-rerank; null means all.
    """

    query: NotBlank
    passages: Passages | None = None
    documents: Passages | None = None
    top_k: AtLeastOne | UnsetType | None = UNSET
    top_n: AtLeastOne | UnsetType | None = UNSET
    return_documents: bool | None = None
    model: str | None = None
    instruction: str | None = None


class RankedPassage(Struct, kw_only=True, omit_defaults=True):
    """A passage's index and score; without ``return_documents`` false also its text."""

    text: str | UnsetType = UNSET
    score: float
    index: int


class RerankUsage(Struct, kw_only=True):
    """The passages, tokens and time of an answer. ``query_length`` is in characters."""

    total_passages: int
    returned_passages: int
    total_tokens: int
    processing_time_ms: float
    backend: str
    top_k: int
    query_length: int


class RerankReply(Struct, kw_only=True):
    """The body of an answer, best first. ``num_passages`` is the number of results."""

    results: list[RankedPassage]
    query: str
    backend: str
    device: str
    method: str
    processing_time: float
    model_info: str
    usage: RerankUsage
    timestamp: str
    num_passages: int


PASSAGES = ["Bananas are yellow.", "The cat sat on the mat."]
QUERY = "Where is the cat?"
_REQUEST = requires_any(RerankRequest, {"passages": _NOT_EMPTY_LIST}, {"documents": _NOT_EMPTY_LIST})
_RERANK = RouteDocs(
    summary="Rank passages by relevance to a query, as in embed-rerank",
    answers=("scores",),
    body=_REQUEST,
    reply=RerankReply,
    example={"query": QUERY, "passages": PASSAGES, "top_k": 1},
    examples={"other names": {"query": QUERY, "documents": [{"text": text} for text in PASSAGES], "top_n": 2}},
    headers=HEADERS,
)
_BATCH = RouteDocs(
    summary="Rank passages for several queries",
    answers=("scores",),
    details="Answers several queries, each with its own passages, concurrently.",
    body=Annotated[list[_REQUEST], json_schema(minItems=1)],  # type: ignore[valid-type]
    reply=list[RerankReply],
    example=[{"query": QUERY, "passages": PASSAGES, "top_k": 1}],
    headers=HEADERS,
)

_DEFAULT_TOP_K = 10  # as in embed-rerank


def _to_job(body: RerankRequest) -> RankJob:
    passages = body.documents if body.passages is None else body.passages
    if passages is None:
        raise InputError("passages is required, or documents", "passages")
    return RankJob(
        model=body.model or None,
        query=body.query.strip(),
        documents=texts_of(passages),
        top_n=_top_n(body.top_n if body.top_k is UNSET else body.top_k, len(passages)),
        instruction=body.instruction or None,
    )


def _top_n(top_k: int | UnsetType | None, count: int) -> int | None:
    """Return the number of results; None for all."""
    if top_k is None:
        return None
    return min(_DEFAULT_TOP_K if isinstance(top_k, UnsetType) else top_k, max(count, 1))


def texts_of(documents: Sequence[str | DocumentObject]) -> tuple[str, ...]:
    """Return the documents' texts. Raises EmptyInput for one without a text."""
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


def _reply(body: RerankRequest, job: RankJob, done: Ranked) -> RerankReply:
    seconds = done.timings.load_s + done.timings.total_s
    texts = [UNSET] * len(job.documents) if body.return_documents is False else job.documents
    return RerankReply(
        results=[
            RankedPassage(text=texts[result.index], score=result.score, index=result.index) for result in done.results
        ],
        query=job.query,
        backend=done.info.engine,
        device=done.info.device,
        method=ranking_method(done.info),
        processing_time=seconds,
        model_info=done.info.name,
        usage=RerankUsage(
            total_passages=len(job.documents),
            returned_passages=len(done.results),
            total_tokens=done.usage.tokens,
            processing_time_ms=seconds * 1000,
            backend=done.info.engine,
            top_k=len(job.documents) if job.top_n is None else job.top_n,
            query_length=len(job.query),
        ),
        timestamp=datetime.now(UTC).isoformat(),
        num_passages=len(done.results),
    )


def _batch_jobs(bodies: list[RerankRequest]) -> list[RankJob]:
    if not bodies:
        raise EmptyInput("the list of requests cannot be empty")
    check_at_most(MAX_JOBS, "requests", bodies)
    return [_to_job(body) for body in bodies]


async def _rank_all(service: Service, jobs: list[RankJob], caller: Caller) -> CombinedResult[Ranked]:
    return combine(await run_all(service.rank, jobs, caller))


def _batch_reply(bodies: list[RerankRequest], jobs: list[RankJob], done: CombinedResult[Ranked]) -> list[RerankReply]:
    return [_reply(*each) for each in zip(bodies, jobs, done.results, strict=True)]


RERANK = Endpoint(_RERANK, _to_job, Service.rank, _reply, headers=process_time)
RERANK_BATCH = Endpoint(_BATCH, _batch_jobs, _rank_all, _batch_reply, headers=process_time)
