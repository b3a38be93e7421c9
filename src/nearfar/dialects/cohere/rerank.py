"""Cohere's rerank, versions 1 and 2: https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from litestar import Request, Response, post
from msgspec import UNSET, Struct, UnsetType

from nearfar import errors
from nearfar.dialects import json_response, report, service_of
from nearfar.dialects.cohere.envelope import Meta, meta_example, named
from nearfar.dialects.described import NOT_EMPTY, AtLeastOne, Described, NotBlank, NotEmpty, documented, needing
from nearfar.dialects.reading import read_request, while_connected
from nearfar.jobs import RankJob

if TYPE_CHECKING:
    from nearfar.dialects import AnyRequest
    from nearfar.jobs import Ranked

_MAX_CHUNKS = 10_000
_DOCUMENTS_A_UNIT = 100
_MAX_TOKENS_A_DOCUMENT = 4096  # version 2's default

_Document = str | dict[str, Any]
_Count = documented(minItems=1, maxItems=_MAX_CHUNKS - 1)
_WITH_TEXT = documented(required=["text"], properties={"text": NOT_EMPTY})


class RerankV1Request(Struct, kw_only=True):
    """The body of POST /v1/rerank. Null means absent; fields not named here are ignored.

    ``instruction`` is ours: what is looked for, in a sentence, for rerankers that are language models.
    """

    model: str | None = None
    query: NotBlank
    documents: Annotated[list[NotEmpty | dict[str, Any]], _Count]
    top_n: AtLeastOne | None = None
    rank_fields: Annotated[list[str], documented(minItems=1)] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: AtLeastOne | None = None
    instruction: str | None = None


class RerankV2Request(Struct, kw_only=True):
    """The body of POST /v2/rerank. ``return_documents`` left the protocol, but LiteLLM still sends it.

    ``instruction`` is ours, as in version 1.
    """

    model: str | None = None
    query: NotBlank
    documents: Annotated[list[NotEmpty | Annotated[dict[str, Any], _WITH_TEXT]], _Count]
    top_n: AtLeastOne | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: AtLeastOne | None = None
    instruction: str | None = None


class RankedDocument(Struct, omit_defaults=True):
    """One document's place and score; what it was, where that was asked for."""

    index: int
    relevance_score: float
    document: dict[str, Any] | UnsetType = UNSET  # absent unless asked for: clients break on null


class RerankReply(Struct):
    """The body of both versions' answer, best first."""

    id: str
    results: list[RankedDocument]
    meta: Meta


def _replied(version: str) -> dict[str, Any]:
    """Give what the built-in model answers to the examples."""
    return {
        "id": "7e3d5b1c-4a52-4f0e-9a53-2c8a3d1f0b6e",
        "results": [{"index": 1, "relevance_score": 0.767}, {"index": 0, "relevance_score": 0.548}],
        "meta": meta_example(version, search_units=1),
    }


RERANK_V1 = Described(
    summary="Documents sorted by how well they answer a query",
    body=RerankV1Request,
    reply=RerankReply,
    example={"query": "Where is the cat?", "documents": ["Bananas are yellow.", "The cat sat on the mat."]},
    examples={
        "objects": {
            "model": "rerank-english-v3.0",
            "query": "Where is the cat?",
            "documents": [{"title": "Pets", "body": "The cat sat on the mat."}],
            "rank_fields": ["title", "body"],
            "return_documents": True,
        }
    },
    reply_example=_replied("1"),
)
RERANK_V2 = Described(
    summary="Documents sorted by how well they answer a query",
    body=needing(RerankV2Request, model=NOT_EMPTY),
    reply=RerankReply,
    example={
        "model": "rerank-v3.5",
        "query": "Where is the cat?",
        "documents": ["Bananas are yellow.", "The cat sat on the mat."],
        "top_n": 2,
    },
    reply_example=_replied("2"),
)
_v1 = msgspec.json.Decoder(RerankV1Request)
_v2 = msgspec.json.Decoder(RerankV2Request)


@post("/v1/v1/rerank", status_code=200, opt={"described": RERANK_V1})
async def rerank_v1_doubled(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await rerank_v1(request)


async def rerank_v1(request: AnyRequest) -> Response[bytes]:
    body = await read_request(request, _v1)
    if body.rank_fields == []:
        raise errors.EmptyInput("rank_fields cannot be empty")
    if body.max_chunks_per_doc is not None and body.max_chunks_per_doc < 1:
        raise errors.InputError(f"max_chunks_per_doc must be at least 1, not {body.max_chunks_per_doc}")
    # Cohere assumes 10 chunks a document where none is said. Documents are cut here, not chunked, so each counts once.
    chunks = len(body.documents) * (body.max_chunks_per_doc or 1)
    if chunks >= _MAX_CHUNKS:
        raise errors.TooMany("documents", chunks, _MAX_CHUNKS)
    job = RankJob(
        model=body.model or None,
        query=body.query,
        documents=tuple(_text(index, given, body.rank_fields) for index, given in enumerate(body.documents)),
        top_n=body.top_n,
        instruction=body.instruction or None,
    )
    return await _answer(request, job, body.documents if body.return_documents else None, version="1")


@post(["/v2/rerank", "/v1/v2/rerank"], status_code=200, opt={"described": RERANK_V2})
async def rerank_v2(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _v2)
    model = named(body.model)
    if len(body.documents) >= _MAX_CHUNKS:
        raise errors.TooMany("documents", len(body.documents), _MAX_CHUNKS)
    job = RankJob(
        model=model,
        query=body.query,
        documents=tuple(_text(index, given, None) for index, given in enumerate(body.documents)),
        top_n=body.top_n,
        max_tokens_per_document=_MAX_TOKENS_A_DOCUMENT if body.max_tokens_per_doc is None else body.max_tokens_per_doc,
        instruction=body.instruction or None,
    )
    return await _answer(request, job, body.documents if body.return_documents else None, version="2")


async def _answer(
    request: Request[Any, Any, Any], job: RankJob, echoed: list[_Document] | None, *, version: str
) -> Response[bytes]:
    done = await while_connected(request, service_of(request).rank(job))
    headers = report(request, done.model, len(job.documents), done.usage)
    return json_response(_reply(done, echoed, len(job.documents), version), headers=headers)


def _reply(done: Ranked, echoed: list[_Document] | None, documents: int, version: str) -> RerankReply:
    results = [
        RankedDocument(found.index, found.score, UNSET if echoed is None else _as_object(echoed[found.index]))
        for found in done.results
    ]
    # A search unit is one query with up to 100 documents. Cohere also splits documents over 500 tokens and
    # counts each piece; here a document is cut at the model's limit instead, so it counts once.
    units = math.ceil(documents / _DOCUMENTS_A_UNIT)
    return RerankReply(str(uuid.uuid4()), results, Meta({"version": version}, {"search_units": units}))


def _as_object(document: _Document) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document


def _text(index: int, document: _Document, rank_fields: list[str] | None) -> str:
    """Take a document's text: the string, the object's ``text``, or its ``rank_fields`` as lines of YAML."""
    if isinstance(document, str):
        text = document
    elif rank_fields:
        said = {field: document[field] for field in rank_fields if document.get(field) is not None}
        text = "\n".join(f"{field}: {_yaml(value)}" for field, value in said.items())
    else:
        text = document.get("text") or ""
    if not isinstance(text, str):
        raise errors.InputError(f"the text of the document at index {index} must be a string")
    if not text:
        raise errors.EmptyInput(f"document at index {index} cannot be empty")
    return text


def _yaml(value: Any) -> str:
    """Write a value in YAML, of which JSON is a part."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
