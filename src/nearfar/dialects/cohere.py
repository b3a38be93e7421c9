"""Cohere's rerank, versions 1 and 2, in its words: https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from litestar import Request, Response, post
from msgspec import UNSET, Struct, UnsetType

from nearfar import errors
from nearfar.dialects import Dialect, ErrorRow, json_response, read_body, report, service_of, while_connected
from nearfar.types import RankJob

if TYPE_CHECKING:
    from nearfar.types import Ranked, Task

_MAX_CHUNKS = 10_000
_DOCUMENTS_A_UNIT = 100
_MAX_TOKENS_A_DOCUMENT = 4096  # version 2's default

_Document = str | dict[str, Any]
_T = TypeVar("_T")


class RerankV1Request(Struct, kw_only=True):
    """The body of POST /v1/rerank. Null means absent; fields not named here are ignored.

    ``instruction`` is ours: what is looked for, in a sentence, for rerankers that are language models.
    """

    model: str | None = None
    query: str
    documents: list[_Document]
    top_n: int | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: int | None = None
    instruction: str | None = None


class RerankV2Request(Struct, kw_only=True):
    """The body of POST /v2/rerank. ``return_documents`` left the protocol, but LiteLLM still sends it.

    ``instruction`` is ours, as in version 1.
    """

    model: str | None = None
    query: str
    documents: list[_Document]
    top_n: int | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = None
    instruction: str | None = None


class _Result(Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: dict[str, Any] | UnsetType = UNSET  # absent unless asked for: clients break on null


class _Meta(Struct):
    api_version: dict[str, str]
    billed_units: dict[str, int]


class RerankReply(Struct):
    """The body of both versions' answer, best first."""

    id: str
    results: list[_Result]
    meta: _Meta


_v1 = msgspec.json.Decoder(RerankV1Request)
_v2 = msgspec.json.Decoder(RerankV2Request)


@post(["/v1/rerank", "/v1/v1/rerank"], status_code=200)
async def rerank_v1(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await _read(request, _v1)
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


@post(["/v2/rerank", "/v1/v2/rerank"], status_code=200)
async def rerank_v2(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await _read(request, _v2)
    if not body.model:
        raise errors.NoModel("a model parameter is required for this endpoint.")
    if len(body.documents) >= _MAX_CHUNKS:
        raise errors.TooMany("documents", len(body.documents), _MAX_CHUNKS)
    job = RankJob(
        model=body.model,
        query=body.query,
        documents=tuple(_text(index, given, None) for index, given in enumerate(body.documents)),
        top_n=body.top_n,
        max_tokens_per_document=_MAX_TOKENS_A_DOCUMENT if body.max_tokens_per_doc is None else body.max_tokens_per_doc,
        instruction=body.instruction or None,
    )
    return await _answer(request, job, body.documents if body.return_documents else None, version="2")


async def _read(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[_T]) -> _T:
    try:
        return await read_body(request, decoder)
    except msgspec.ValidationError as error:
        raise errors.InputError(str(error)) from error


async def _answer(
    request: Request[Any, Any, Any], job: RankJob, echoed: list[_Document] | None, *, version: str
) -> Response[bytes]:
    done = await while_connected(request, service_of(request).rank(job))
    headers = report(request, done.model, len(job.documents), done.usage)
    return json_response(_reply(done, echoed, len(job.documents), version), headers=headers)


def _reply(done: Ranked, echoed: list[_Document] | None, documents: int, version: str) -> RerankReply:
    results = [
        _Result(found.index, found.score, UNSET if echoed is None else _as_object(echoed[found.index]))
        for found in done.results
    ]
    # A search unit is one query with up to 100 documents. Cohere also splits documents over 500 tokens and
    # counts each piece; here a document is cut at the model's limit instead, so it counts once.
    units = math.ceil(documents / _DOCUMENTS_A_UNIT)
    return RerankReply(str(uuid.uuid4()), results, _Meta({"version": version}, {"search_units": units}))


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


def _invalid(error: errors.InputError) -> str:
    return f"invalid request: {error}"


_FAILED = "internal server error"
_ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    errors.RequestError: ErrorRow(400),
    errors.InputError: ErrorRow(400, phrase=_invalid),
    errors.MalformedBody: ErrorRow(400, phrase=lambda error: f"invalid json syntax: {error}"),
    errors.BodyTooLarge: ErrorRow(413, phrase=_invalid),
    errors.NoModel: ErrorRow(400),
    errors.EmptyInput: ErrorRow(400, phrase=_invalid),
    errors.TooMany: ErrorRow(
        400,
        phrase=lambda error: (
            "invalid request: number of total max chunks (number of documents * max chunks per doc) "
            f"must be less than {error.limit}"
        ),
    ),
    errors.TooLong: ErrorRow(400, phrase=lambda error: f"too many tokens: {error}"),
    errors.TooManyTokens: ErrorRow(400, phrase=lambda error: f"too many tokens: {error}"),
    errors.BadDimensions: ErrorRow(400, phrase=_invalid),
    errors.BadTokenIds: ErrorRow(400, phrase=_invalid),
    errors.UnknownModel: ErrorRow(
        404,
        phrase=lambda error: (
            f"model '{error.model}' not found, make sure the correct model ID was used and that you "
            "have access to the model."
        ),
    ),
    errors.WrongTask: ErrorRow(400, phrase=lambda error: f"invalid request: {error}"),
    errors.UnknownPath: ErrorRow(404, phrase=lambda _: "404 page not found"),
    errors.WrongMethod: ErrorRow(405),
    errors.MissingKey: ErrorRow(401, phrase=lambda _: "no api key supplied"),
    errors.WrongKey: ErrorRow(401, phrase=lambda _: "invalid api token"),
    errors.CallerGone: ErrorRow(499),
    errors.ServingError: ErrorRow(500, phrase=lambda _: _FAILED),
    errors.Overloaded: ErrorRow(429),
    errors.DeadlinePassed: ErrorRow(504),
    errors.NotReady: ErrorRow(503),
    errors.Draining: ErrorRow(503),
    errors.OutOfMemory: ErrorRow(413),
    errors.EngineFailed: ErrorRow(500, phrase=lambda _: _FAILED),
    errors.InternalFault: ErrorRow(500, phrase=lambda _: _FAILED),
}


def _render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    return {"message": sentence, "id": str(uuid.uuid4())}


_VENDOR_MODELS: dict[str, Task] = dict.fromkeys(
    (
        "rerank-v4.0-pro",
        "rerank-v4.0-fast",
        "rerank-v3.5",
        "rerank-english-v3.0",
        "rerank-multilingual-v3.0",
        "rerank-english-v2.0",
        "rerank-multilingual-v2.0",
    ),
    "rank",
)

dialect = Dialect(
    name="cohere",
    handlers=[rerank_v1, rerank_v2],
    errors=_ERRORS,
    render_error=_render_error,
    prefixes=("/v2", "/v1/rerank", "/v1/v1", "/v1/v2"),
    vendor_models=_VENDOR_MODELS,
)
