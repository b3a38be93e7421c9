"""The route /rerank of vLLM and Infinity, which Open WebUI, Dify, Continue and LiteLLM also call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nearfar.core.errors import InputError
from nearfar.core.jobs import RankJob
from nearfar.dialects.kit.endpoint import json_response, record_usage
from nearfar.dialects.kit.request import caller_of, cancel_on_disconnect, read_request, service_of
from nearfar.dialects.vllm.bodies import Content, ContentPart, RerankReply, RerankRequest, RerankResult
from nearfar.dialects.vllm.routes import check_truncation, envelope

if TYPE_CHECKING:
    from litestar import Response

    from nearfar.dialects.kit.request import AnyRequest

_rerank = msgspec.json.Decoder(RerankRequest)


async def rerank(request: AnyRequest) -> Response[bytes]:
    body = await read_request(request, _rerank)
    check_truncation(body)
    job = RankJob(
        model=body.model or None,
        query=_text(body.query, "query"),
        documents=_documents(body.documents),
        top_n=body.top_n or None,
        max_tokens_per_document=body.max_tokens_per_doc or None,
        raw_scores=bool(body.raw_scores) or body.wants_logits,
        instruction=body.instruction or None,
    )
    done = await cancel_on_disconnect(request, service_of(request).rank(job, caller_of(request.scope)))
    results = [RerankResult(result.index, result.score) for result in done.results]
    reply = RerankReply(results=results, data=results, **envelope("rerank", done))
    return json_response(reply, headers=record_usage(request, done.model, len(job.documents), done.usage, done.timings))


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
