"""Jina's rerank of texts."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct

from nearfar.core import errors
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.jina.embeddings import Document, JinaText, text_of
from nearfar.dialects.kit.checks import check_at_most, require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import RankedItem, TotalTokens, ranked_items
from nearfar.dialects.kit.route_docs import NOT_BLANK, NOT_EMPTY, AtLeastOne, RouteDocs, json_schema, requires
from nearfar.serving.service import Service

_MAX_DOCUMENTS = 10_000  # Jina's is 2,048; more breaks no client
_QUERY: dict[str, Any] = {"anyOf": [NOT_BLANK, {"type": "object", "properties": {"text": NOT_BLANK}}]}


class JinaRerankRequest(Struct, kw_only=True):
    """The body of POST /jina/v1/rerank. Null means absent; other fields are ignored.

    Jina no longer documents ``truncate``; false still refuses a text that is too long for the model.
    """

    model: str | None = None
    query: Annotated[Document, json_schema(allOf=[_QUERY])]
    documents: Annotated[list[Document], json_schema(minItems=1, maxItems=_MAX_DOCUMENTS)]
    top_n: AtLeastOne | None = None
    return_documents: bool | None = None
    truncate: bool | None = None
    max_doc_length: AtLeastOne | None = None
    return_embeddings: Annotated[bool, json_schema(const=False)] | None = None


class JinaRerankReply(Struct, kw_only=True):
    """The body of a response, best first."""

    model: str
    object: str = "list"
    usage: TotalTokens
    results: list[RankedItem[JinaText]]


_DOCS = RouteDocs(
    summary="Documents sorted by how well they answer a query",
    answers=("scores",),
    body=requires(JinaRerankRequest, model=NOT_EMPTY),
    reply=JinaRerankReply,
    example={
        "model": "jina-reranker-v2-base-multilingual",
        "query": "Where is the cat?",
        "documents": ["Bananas are yellow.", {"text": "The cat sat on the mat."}],
        "top_n": 1,
    },
)


def _to_job(body: JinaRerankRequest) -> RankJob:
    if body.return_embeddings:
        raise errors.InputError("return_embeddings: rerankers give no vectors here; ask /jina/v1/embeddings")
    check_at_most(_MAX_DOCUMENTS, "documents", body.documents)
    if body.max_doc_length is not None and body.max_doc_length < 1:
        raise errors.InputError(f"max_doc_length must be at least 1, not {body.max_doc_length}", "max_doc_length")
    return RankJob(
        model=require_model(body.model),
        query=text_of(body.query),
        documents=tuple(text_of(document) for document in body.documents),
        top_n=body.top_n,
        max_tokens_per_document=body.max_doc_length,
        on_overflow="error" if body.truncate is False else None,
    )


def _reply(body: JinaRerankRequest, job: RankJob, done: Ranked) -> JinaRerankReply:
    documents = None if body.return_documents is False else [*map(JinaText, job.documents)]  # Jina's default is true
    return JinaRerankReply(
        model=done.info.name, usage=TotalTokens(done.usage.tokens), results=ranked_items(done, documents)
    )


RERANK = Endpoint(_DOCS, _to_job, Service.rank, _reply)
