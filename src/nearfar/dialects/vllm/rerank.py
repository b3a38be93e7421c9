"""The route /rerank of vLLM and Infinity, which Open WebUI, Dify, Continue and LiteLLM also call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from litestar import Response
from msgspec import UNSET, Meta, Struct, UnsetType

from nearfar.core.errors import InputError
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.kit.endpoint import Endpoint, PostRoute
from nearfar.dialects.kit.request import AnyRequest, settings_of
from nearfar.dialects.kit.route_docs import NOT_BLANK, RANKING, RouteDocs, json_schema, requires
from nearfar.dialects.vllm.routes import ListReply, PairScoring, envelope
from nearfar.serving.service import Service


class ContentPart(Struct, kw_only=True):
    """A part of a multimodal text or document; only text is supported."""

    type: str = "text"
    text: str | None = None


class Content(Struct, kw_only=True):
    """A text or document as an object with ``text``, or ``content``, which is a string or parts."""

    text: str | None = None
    content: str | list[ContentPart] | None = None


_VLLM_FIELDS = (
    "use_activation",
    "activation",
    "truncate_prompt_tokens",
    "truncation_side",
    "max_tokens_per_query",
)


def _object(required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these fields, one of them required."""
    return {"type": "object", "required": [required], "properties": properties}


_PART = _object("text", text=NOT_BLANK, type={"const": "text"})
_WITH_PARTS = _object("content", content={"type": "array", "minItems": 1, "items": _PART})
_WITH_TEXT = _object("text", text=NOT_BLANK, content={"type": ["string", "null"]})
_WITH_CONTENT = _object("content", content=NOT_BLANK, text={"type": "null"})
_TEXT: dict[str, Any] = {"anyOf": [NOT_BLANK, _WITH_PARTS, _WITH_TEXT, _WITH_CONTENT]}
_TEXT_LIST: dict[str, Any] = {"type": "array", "minItems": 1, "items": _TEXT}
_DOCUMENTS: dict[str, Any] = {"anyOf": [_TEXT_LIST, _WITH_PARTS, _WITH_TEXT, _WITH_CONTENT]}


class RerankRequest(PairScoring, kw_only=True):
    """The body of POST /rerank.

    One object as ``documents`` contains a document in each part of its ``content``. ``top_n`` 0 means all, as in vLLM.
    ``raw_scores`` is Infinity's, the opposite of vLLM's ``use_activation``. ``return_documents`` has no effect; see
    ``RerankResult``. ``instruction`` is an addition, for rerankers that are language models. ``docs`` is another
    name of ``documents``.
    """

    query: Annotated[str | Content, json_schema(allOf=[_TEXT])]
    documents: Annotated[list[str | Content] | Content, json_schema(allOf=[_DOCUMENTS])] | None = None
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
        query=_text(body.query, "query"),
        documents=_documents(_required(body)),
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


def _documents(documents: list[str | Content] | Content) -> tuple[str, ...]:
    if isinstance(documents, Content):
        if not isinstance(documents.content, list):
            return (_text(documents, "documents"),)
        return tuple(_join([part], f"documents.content[{index}]") for index, part in enumerate(documents.content))
    return tuple(_text(document, f"documents[{index}]") for index, document in enumerate(documents))


def _text(content: str | Content, field: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content.content, list):
        return _join(content.content, f"{field}.content")
    text = content.content if content.text is None else content.text
    if text is None:
        raise InputError(f"{field} must be a string, or an object with text or content", field)
    return text


def _join(parts: list[ContentPart], field: str) -> str:
    texts = [part.text for part in parts if part.type == "text" and part.text is not None]
    if len(texts) < len(parts):
        raise InputError(f"{field}: the models here read text only", field)
    return "\n".join(texts)


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
    body=requires(RerankRequest, documents=_DOCUMENTS),
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
