"""The route /rerank of vLLM and Infinity, which Open WebUI, Dify, Continue and LiteLLM also call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from litestar import Response
from msgspec import UNSET, Meta, Struct, UnsetType

from nearfar.core.errors import InputError
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.kit.endpoint import Endpoint, PostRoute
from nearfar.dialects.kit.request import AnyRequest, settings_of
from nearfar.dialects.kit.route_docs import RANKING, RouteDocs, json_schema, requires
from nearfar.dialects.vllm.content import DOCUMENTS, TEXT, Content, text_of, texts_of
from nearfar.dialects.vllm.routes import ListReply, PairScoring, envelope
from nearfar.serving.service import Service

_VLLM_FIELDS = (
    "use_activation",
    "activation",
    "truncate_prompt_tokens",
    "truncation_side",
    "max_tokens_per_query",
)


class RerankRequest(PairScoring, kw_only=True):
    """The body of POST /rerank.

    One object as ``documents`` contains a document in each part of its ``content``. ``top_n`` 0 means all, as in vLLM.
    ``raw_scores`` is Infinity's, the opposite of vLLM's ``use_activation``. ``return_documents`` has no effect; see
    ``RerankResult``. ``instruction`` is an addition, for rerankers that are language models. ``docs`` is another
    name of ``documents``.
    """

    query: Annotated[str | Content, json_schema(allOf=[TEXT])]
    documents: Annotated[list[str | Content] | Content, json_schema(allOf=[DOCUMENTS])] | None = None
    docs: list[str | Content] | Content | None = None
    top_n: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None
    instruction: str | None = None


class DocumentText(Struct):
    """A document as vLLM returns it."""

    text: str


class RerankResult(Struct):
    """A document's index and score, and for a request of vLLM's or Infinity's own clients the document.

    Other requests get none, whatever ``return_documents`` asks for. Clients that send the same request want a string
    (LiteLLM's infinity), an object (LiteLLM's hosted_vllm) or anything but null, and each fails on the others' form.
    All of them accept its absence: they have the documents that they sent. The setting ``rerank_documents`` returns
    vLLM's objects to all but Infinity's clients.
    """

    index: int
    relevance_score: float
    document: str | DocumentText | UnsetType = UNSET


class RerankReply(ListReply[RerankResult], kw_only=True):
    """The body of an answer to /rerank, best first. ``data`` repeats ``results`` for clients of Voyage's form."""

    object: Literal["list", "rerank"] = "list"  # type: ignore[assignment]
    results: list[RerankResult]


def _to_job(body: RerankRequest) -> RankJob:
    return RankJob(
        model=body.model or None,
        query=text_of(body.query, "query"),
        documents=texts_of(_required(body), "documents"),
        top_n=body.top_n or None,
        raw_scores=bool(body.raw_scores) or body.wants_logits,
        instruction=body.instruction or None,
        **body.limits(),
    )


def _required(body: RerankRequest) -> list[str | Content] | Content:
    documents = body.docs if body.documents is None else body.documents
    if documents is None:
        raise InputError("Object missing required field `documents`")
    return documents


def _reply(body: RerankRequest, job: RankJob, done: Ranked, *, as_vllm: bool = False) -> RerankReply:
    """Build the reply. Infinity's client always sends ``raw_scores``; ``_VLLM_FIELDS`` are vLLM's alone."""
    is_infinity = body.raw_scores is not None
    form: Callable[[str], str | DocumentText] | None = None
    if is_infinity and body.return_documents:
        form = str
    elif any(getattr(body, field) is not None for field in _VLLM_FIELDS) or (as_vllm and not is_infinity):
        form = DocumentText
    results = [
        RerankResult(result.index, result.score, form(job.documents[result.index]) if form else UNSET)
        for result in done.results
    ]
    return RerankReply(
        object="rerank" if is_infinity else "list",
        results=results,
        data=results,
        **envelope("rerank", done, body.request_id),
    )


_RERANK = RouteDocs(
    summary="Rank documents by relevance to a query, as in vLLM and Infinity",
    answers=("scores",),
    body=requires(RerankRequest, documents=DOCUMENTS),
    reply=RerankReply,
    example={**RANKING, "top_n": 1},
)
RERANK = Endpoint(_RERANK, _to_job, Service.rank, _reply)
_WITH_DOCUMENTS = Endpoint(_RERANK, _to_job, Service.rank, partial(_reply, as_vllm=True))


async def rerank(request: AnyRequest) -> Response[bytes]:
    """Rank documents. The setting ``rerank_documents`` decides whether all replies have them."""
    endpoint = _WITH_DOCUMENTS if settings_of(request).rerank_documents else RERANK
    return await endpoint.answer(request)


RERANKING = PostRoute(paths=("/rerank", "/reranking", "/v1/reranking"), handler=rerank, docs=_RERANK)
INVOKE_RERANK = PostRoute(paths=("/invocations",), fields=("documents",), precedence=1, handler=rerank, docs=_RERANK)
