"""The bare /rerank of vLLM and Infinity, which Open WebUI, Dify, Continue and LiteLLM call too."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nearfar.core.errors import InputError
from nearfar.core.jobs import RankJob
from nearfar.dialects.kit.base import json_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request
from nearfar.dialects.kit.route_docs import NOT_BLANK, RouteDocs, json_schema
from nearfar.dialects.vllm.bodies import Tokens

if TYPE_CHECKING:
    from litestar import Response

    from nearfar.core.jobs import Ranked
    from nearfar.dialects.kit.base import AnyRequest


class Part(Struct, kw_only=True):
    """A piece of a multimodal text or document; only text is known here."""

    type: str = "text"
    text: str | None = None


class Content(Struct, kw_only=True):
    """A text or document as an object: ``text``, or ``content``, which is a string or pieces."""

    text: str | None = None
    content: str | list[Part] | None = None


_PARTS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {"required": ["text"], "properties": {"text": NOT_BLANK, "type": {"const": "text"}}},
}
_WITH_PARTS: dict[str, Any] = {"type": "object", "required": ["content"], "properties": {"content": _PARTS}}
_WITH_TEXT: dict[str, Any] = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": NOT_BLANK, "content": {"type": ["string", "null"]}},
}
_WITH_CONTENT: dict[str, Any] = {
    "type": "object",
    "required": ["content"],
    "properties": {"content": NOT_BLANK, "text": {"type": "null"}},
}
_SAID: dict[str, Any] = {"anyOf": [NOT_BLANK, _WITH_PARTS, _WITH_TEXT, _WITH_CONTENT]}
_LIST: dict[str, Any] = {"type": "array", "minItems": 1, "items": _SAID}
_LISTED: dict[str, Any] = {"anyOf": [_LIST, _WITH_PARTS, _WITH_TEXT, _WITH_CONTENT]}


class RerankRequest(Struct, kw_only=True):
    """The body of POST /rerank. Null means absent; fields not named here are ignored.

    One object as ``documents`` has a document in each piece of its ``content``. ``top_n`` 0 means all, as in vLLM.
    ``raw_scores`` is Infinity's word for what vLLM calls ``use_activation`` false. ``return_documents`` changes
    nothing: a document never comes back from here. ``instruction`` is ours: what is looked for, in a sentence, for
    rerankers that are language models.
    """

    model: str | None = None
    query: Annotated[str | Content, json_schema(allOf=[_SAID])]
    documents: Annotated[list[str | Content] | Content, json_schema(allOf=[_LISTED])]
    top_n: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=0)] | None = None
    truncate_prompt_tokens: Annotated[int, json_schema(const=-1)] | None = None
    instruction: str | None = None


class Result(Struct):
    """One document's place.

    There is no ``document``, whatever ``return_documents`` says. Clients that can't be told apart by what they send
    want it as a string (LiteLLM's infinity), as an object (LiteLLM's hosted_vllm) or anything but null, and each
    breaks on the others' form. All of them take its absence: they know the documents that they sent.
    """

    index: int
    relevance_score: float


class RerankReply(Struct, kw_only=True):
    """The body of an answer, best first: ``results``, and once more as ``data``, where Voyage's kin look."""

    id: str
    object: str = "list"
    created: int
    model: str
    results: list[Result]
    data: list[Result]
    usage: Tokens


_rerank = msgspec.json.Decoder(RerankRequest)
RERANK = RouteDocs(
    summary="Documents sorted by how well they answer a query, as vLLM and Infinity say it",
    body=RerankRequest,
    reply=RerankReply,
    example={"query": "Where is the cat?", "documents": ["Bananas are yellow.", "The cat sat on the mat."], "top_n": 1},
    reply_example={
        "id": "rerank-5e9b1ef2a4a84f0b9d7c1f6f0a3b2c1d",
        "object": "list",
        "created": 1764000000,
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "results": [{"index": 1, "relevance_score": 0.83}],
        "data": [{"index": 1, "relevance_score": 0.83}],
        "usage": {"prompt_tokens": 24, "total_tokens": 24, "completion_tokens": 0, "prompt_tokens_details": None},
    },
)


async def rerank(request: AnyRequest) -> Response[bytes]:
    body = await read_request(request, _rerank)
    if body.truncate_prompt_tokens not in {None, -1}:
        raise InputError("truncate_prompt_tokens: only -1 is known here; max_tokens_per_doc cuts documents")
    job = RankJob(
        model=body.model or None,
        query=_text(body.query, "query"),
        documents=_documents(body.documents),
        top_n=body.top_n or None,
        max_tokens_per_document=body.max_tokens_per_doc or None,
        raw_scores=bool(body.raw_scores) or False in {body.use_activation, body.activation},
        instruction=body.instruction or None,
    )
    done = await cancel_on_disconnect(request, service_of(request).rank(job, caller_of(request.scope)))
    return json_response(
        _reply(done), headers=record_usage(request, done.model, len(job.documents), done.usage, done.timings)
    )


def _documents(said: list[str | Content] | Content) -> tuple[str, ...]:
    if isinstance(said, Content):
        pieces = said.content if isinstance(said.content, list) else [Part(text=_text(said, "documents"))]
        return tuple(_pieces([piece], f"documents.content[{index}]") for index, piece in enumerate(pieces))
    return tuple(_text(one, f"documents[{index}]") for index, one in enumerate(said))


def _text(said: str | Content, where: str) -> str:
    if isinstance(said, str):
        return said
    if isinstance(said.content, list):
        return _pieces(said.content, f"{where}.content")
    text = said.content if said.text is None else said.text
    if text is None:
        raise InputError(f"{where} must be a string, or an object with text or content", where)
    return text


def _pieces(pieces: list[Part], where: str) -> str:
    texts = [piece.text for piece in pieces if piece.type == "text" and piece.text is not None]
    if len(texts) < len(pieces):
        raise InputError(f"{where}: the models here read text only", where)
    return "\n".join(texts)


def _reply(done: Ranked) -> RerankReply:
    results = [Result(found.index, found.score) for found in done.results]
    return RerankReply(
        id=f"rerank-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=done.model,
        results=results,
        data=results,
        usage=Tokens(done.usage.tokens, done.usage.tokens),
    )
