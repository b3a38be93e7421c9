"""Voyage's rerank."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from msgspec import UNSET, Struct, UnsetType

from nearfar.core import errors
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.kit.checks import check_at_most, overflow_of, require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import RankedItem, TotalTokens, ranked_items
from nearfar.dialects.kit.route_docs import NOT_EMPTY, AtLeastOne, NotBlank, NotEmpty, RouteDocs, json_schema, requires
from nearfar.serving.service import Service

_MAX_DOCUMENTS = 10_000  # Voyage's is 1,000; more breaks no client


class VoyageRerankRequest(Struct, kw_only=True):
    """The body of POST /voyage/v1/rerank. Null means absent; other fields are ignored."""

    model: str | None = None
    query: NotBlank
    documents: Annotated[list[NotEmpty], json_schema(minItems=1, maxItems=_MAX_DOCUMENTS)]
    top_k: AtLeastOne | None = None
    return_documents: bool | None = None
    truncation: bool | None = None


class VoyageRerankReply(Struct, kw_only=True):
    """The body of a response, best first. On shared paths ``results`` repeats ``data`` for other clients."""

    object: str = "list"
    data: list[RankedItem[str]]
    results: list[RankedItem[str]] | UnsetType = UNSET
    model: str
    usage: TotalTokens


_DOCS = RouteDocs(
    summary="Documents sorted by how well they answer a query",
    answers=("scores",),
    body=requires(VoyageRerankRequest, model=NOT_EMPTY),
    reply=VoyageRerankReply,
    example={
        "model": "rerank-2.5",
        "query": "Where is the cat?",
        "documents": ["Bananas are yellow.", "The cat sat on the mat."],
        "top_k": 1,
        "return_documents": True,
    },
)


def _to_job(body: VoyageRerankRequest) -> RankJob:
    if not body.documents or "" in body.documents:
        raise errors.EmptyInput("Input cannot contain empty strings or empty lists", "documents")
    check_at_most(_MAX_DOCUMENTS, "documents", body.documents)
    if body.top_k is not None and body.top_k < 1:
        raise errors.InputError(f"must be at least 1, not {body.top_k}", "top_k")
    return RankJob(
        model=require_model(body.model),
        query=body.query,
        documents=tuple(body.documents),
        top_n=body.top_k,
        on_overflow=overflow_of(body.truncation),
    )


def _reply(body: VoyageRerankRequest, job: RankJob, done: Ranked, *, is_shared: bool = False) -> VoyageRerankReply:
    """Build the reply; on a shared path with ``results``, too, which clients of the other protocols there read."""
    data = ranked_items(done, job.documents if body.return_documents else None)
    usage = TotalTokens(done.usage.tokens)
    return VoyageRerankReply(data=data, results=data if is_shared else UNSET, model=done.info.name, usage=usage)


RERANK = Endpoint(_DOCS, _to_job, Service.rank, _reply)
SHARED_RERANK = Endpoint(_DOCS, _to_job, Service.rank, partial(_reply, is_shared=True))
