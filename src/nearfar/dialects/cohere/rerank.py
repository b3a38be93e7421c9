"""Cohere's rerank, versions 1 and 2: https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, Struct, UnsetType

from nearfar.core import errors
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.cohere.documents import Document, TextOf, as_object, text_v1, text_v2, with_text
from nearfar.dialects.cohere.envelope import ANSWER_HEADERS, Meta, Priority, answer_headers, check_priority, meta
from nearfar.dialects.kit.checks import Activation, require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import RankedItem, TokenUsage, ranked_items
from nearfar.dialects.kit.route_docs import NOT_EMPTY, RANKING, AtLeastOne, NotBlank, RouteDocs, json_schema, requires
from nearfar.serving.service import Service

_MAX_CHUNKS = 10_000
_COUNT = json_schema(minItems=1, maxItems=_MAX_CHUNKS - 1)
Documents = Annotated[list[Document], _COUNT]
DocumentsV1 = Annotated[list[str | Annotated[dict[str, Any], json_schema(minProperties=1)]], _COUNT]
AtLeastZero = Annotated[int, json_schema(minimum=0)]


class RerankRequest(Activation, kw_only=True):
    """The fields of both versions.

    vLLM's callers, which use the same paths, also send its fields for long texts and for scores without the activation.
    """

    model: str | None = None
    query: NotBlank
    documents: Documents
    top_n: AtLeastOne | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: AtLeastZero | None = None
    max_tokens_per_query: AtLeastZero | None = None
    instruction: str | None = None


class RerankV1Request(RerankRequest, kw_only=True):
    """The body of POST /v1/rerank.

    A document longer than the model's limit is read in up to ``max_chunks_per_doc`` chunks, 10 by default, and the best
    chunk's score counts. ``rank_fields`` selects the fields of documents that are objects, by default ``text``.
    Other servers with this path return all documents for a ``top_n`` of 0, and so does this one. ``instruction`` is our
    extension: a sentence about what is relevant, for rerankers that are language models.
    """

    documents: DocumentsV1
    top_n: AtLeastZero | None = None
    rank_fields: Annotated[list[str], json_schema(minItems=1)] | None = None
    max_chunks_per_doc: AtLeastOne | None = None


class RerankV2Request(RerankRequest, kw_only=True):
    """The body of POST /v2/rerank.

    Documents are truncated to ``max_tokens_per_doc``, by default 4096. An object without a ``text`` is read whole.
    ``rank_fields`` and ``return_documents`` left the protocol, but LiteLLM still sends them. ``priority`` orders the
    queue. ``instruction`` is our extension, as in version 1.
    """

    max_tokens_per_doc: AtLeastOne | None = None
    rank_fields: list[str] | None = None
    priority: Priority | None = None


class RerankReply(Struct, kw_only=True):
    """The body of a response, best first.

    ``model`` and ``usage`` are for Jina's and vLLM's clients, which send the same body to the same path. Version 1 also
    has ``object`` and, for Voyage's clients, the same results as ``data``.
    """

    id: str
    object: Annotated[str, json_schema(const="list")] | UnsetType = UNSET
    model: str
    results: list[RankedItem[dict[str, Any]]]
    data: list[RankedItem[dict[str, Any]]] | UnsetType = UNSET
    usage: TokenUsage
    meta: Meta


_MAX_CHUNKS_PER_DOC = 10  # version 1's default
_MAX_TOKENS_PER_DOC = 4096  # version 2's
_TOKENS_PER_CHUNK, _CHUNKS_PER_UNIT = 500, 100  # as Cohere bills

_V1 = RouteDocs(
    summary="Documents sorted by how well they answer a query",
    answers=("scores",),
    body=RerankV1Request,
    reply=RerankReply,
    example=RANKING,
    examples={
        "objects": {
            **RANKING,
            "documents": [{"title": "Fruit", "body": "Bananas are yellow."}, {"title": "Pets", "body": "The cat sat."}],
            "rank_fields": ["title", "body"],
            "top_n": 1,
            "return_documents": True,
        }
    },
    reply_example={"object": "list", "meta": meta("1", search_units=1)},
    headers=ANSWER_HEADERS,
)
_V2 = RouteDocs(
    summary="Documents sorted by how well they answer a query",
    answers=("scores",),
    body=requires(RerankV2Request, model=NOT_EMPTY),
    reply=RerankReply,
    example={"model": "rerank-v3.5", **RANKING, "top_n": 2},
    reply_example={"meta": meta("2", search_units=1)},
    headers=ANSWER_HEADERS,
)


def _to_job_v1(body: RerankV1Request) -> RankJob:
    if body.rank_fields == []:
        raise errors.EmptyInput("rank_fields cannot be empty")
    # Cohere assumes 10 chunks by default, but its clients send more than 1,000 documents, most of one chunk.
    _check_chunks(len(body.documents) * (body.max_chunks_per_doc or 1))
    max_chunks = body.max_chunks_per_doc
    if max_chunks is None and body.truncate_prompt_tokens is None:  # vLLM's callers want long documents cut
        max_chunks = _MAX_CHUNKS_PER_DOC
    max_tokens = body.max_tokens_per_doc or None
    return _to_job(body, text_v1, max_chunks_per_document=max_chunks, max_tokens_per_document=max_tokens)


def _to_job_v2(body: RerankV2Request) -> RankJob:
    require_model(body.model)
    check_priority(body.priority)
    _check_chunks(len(body.documents))
    max_tokens = _MAX_TOKENS_PER_DOC if body.max_tokens_per_doc is None else body.max_tokens_per_doc
    return _to_job(body, text_v2, max_tokens_per_document=max_tokens)


def _to_job(body: RerankV1Request | RerankV2Request, text_of: TextOf, **limits: Any) -> RankJob:
    return RankJob(
        model=body.model or None,
        query=body.query,
        documents=tuple(text_of(index, document, body.rank_fields) for index, document in enumerate(body.documents)),
        top_n=(body.top_n or None) if isinstance(body, RerankV1Request) else body.top_n,
        max_tokens_per_query=body.max_tokens_per_query or None,
        raw_scores=body.wants_logits,
        instruction=body.instruction or None,
        **limits,
        **body.truncation(),
    )


def _check_chunks(chunks: int) -> None:
    if chunks >= _MAX_CHUNKS:
        raise errors.TooManyItems("documents", chunks, _MAX_CHUNKS)


def _reply_v1(body: RerankV1Request, job: RankJob, done: Ranked) -> RerankReply:
    documents = [*map(as_object, body.documents)] if body.return_documents else None
    reply = _build_reply(job, done, documents, version="1")
    reply.object, reply.data = "list", reply.results
    return reply


def _reply_v2(body: RerankV2Request, job: RankJob, done: Ranked) -> RerankReply:
    documents = [*map(with_text, body.documents, job.documents)] if body.return_documents else None
    return _build_reply(job, done, documents, version="2")


def _build_reply(job: RankJob, done: Ranked, documents: list[dict[str, Any]] | None, *, version: str) -> RerankReply:
    return RerankReply(
        id=str(uuid.uuid4()),
        model=done.info.name,
        results=ranked_items(done, documents),
        usage=TokenUsage(done.usage.tokens, done.usage.tokens),
        meta=meta(version, search_units=_search_units(done.document_tokens, job)),
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
