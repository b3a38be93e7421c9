"""The route /rerank of vLLM and Infinity, which Open WebUI, Dify, Continue and LiteLLM also call."""

from __future__ import annotations

from nearfar.core.errors import InputError
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.kit.declare import endpoint
from nearfar.dialects.kit.route_docs import RouteDocs
from nearfar.dialects.vllm.bodies import Content, ContentPart, RerankReply, RerankRequest, RerankResult
from nearfar.dialects.vllm.routes import check_truncation, envelope
from nearfar.serving.service import Service


def _to_job(body: RerankRequest) -> RankJob:
    check_truncation(body)
    return RankJob(
        model=body.model or None,
        query=_text(body.query, "query"),
        documents=_documents(body.documents),
        top_n=body.top_n or None,
        max_tokens_per_document=body.max_tokens_per_doc or None,
        raw_scores=bool(body.raw_scores) or body.wants_logits,
        instruction=body.instruction or None,
    )


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


def _reply(_: RerankRequest, __: RankJob, done: Ranked) -> RerankReply:
    results = [RerankResult(result.index, result.score) for result in done.results]
    return RerankReply(results=results, data=results, **envelope("rerank", done))


_RERANK = RouteDocs(
    summary="Rank documents by relevance to a query, as in vLLM and Infinity",
    body=RerankRequest,
    reply=RerankReply,
    example={"query": "Where is the cat?", "documents": ["Bananas are yellow.", "The cat sat on the mat."], "top_n": 1},
)
RERANK = endpoint(_RERANK, _to_job, Service.rank, _reply)
