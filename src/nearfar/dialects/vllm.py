"""vLLM's score, tokenize and detokenize: https://docs.vllm.ai/en/latest/models/pooling_models."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from litestar import Request, Response, post
from msgspec import Meta, Struct

from nearfar import errors
from nearfar.dialects import (
    Dialect,
    ErrorRow,
    SharedRoute,
    json_response,
    read_body,
    report,
    service_of,
    while_connected,
)
from nearfar.types import DetokenizeJob, ScoreJob, TokenizeJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.dialects import AnyRequest
    from nearfar.types import Scored

_T = TypeVar("_T")
_Texts = str | list[str]


class ScoreRequest(Struct, kw_only=True):
    """The body of POST /score, in any of its four spellings. Null means absent; fields not named here are ignored.

    ``activation`` is what older versions call ``use_activation``.
    """

    model: str | None = None
    text_1: _Texts | None = None
    text_2: _Texts | None = None
    data_1: _Texts | None = None
    data_2: _Texts | None = None
    queries: _Texts | None = None
    documents: _Texts | None = None
    items: _Texts | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=0)] | None = None
    truncate_prompt_tokens: int | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize for a plain prompt."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = None


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[int]


class _Score(Struct):
    index: int
    object: str
    score: float


class _Usage(Struct):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: None = None


class ScoreReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[_Score]
    usage: _Usage


class TokenizeReply(Struct):
    """The body of an answer to /tokenize. ``token_strs`` are the vocabulary's names, null unless asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


_score = msgspec.json.Decoder(ScoreRequest)
_tokenize = msgspec.json.Decoder(TokenizeRequest)
_detokenize = msgspec.json.Decoder(DetokenizeRequest)


@post(["/v1/score", "/score"], status_code=200)
async def score(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await _read(request, _score)
    if body.truncate_prompt_tokens not in {None, -1}:
        raise errors.InputError("truncate_prompt_tokens: only -1 is known here; max_tokens_per_doc cuts documents")
    first, second = _sides(body)
    job = ScoreJob(
        model=body.model or None,
        pairs=tuple(zip(first * len(second) if len(first) == 1 else first, second, strict=True)),
        max_tokens_per_document=body.max_tokens_per_doc or None,
        raw_scores=False in {body.use_activation, body.activation},
    )
    done = await while_connected(request, service_of(request).score(job))
    return json_response(_reply(done), headers=report(request, done.model, len(job.pairs), done.usage))


async def tokenize(request: AnyRequest) -> Response[bytes]:
    body = await _read(request, _tokenize)
    job = TokenizeJob(model=body.model or None, texts=(body.prompt,), special=body.add_special_tokens)
    done = await while_connected(request, service_of(request).tokenize(job))
    pieces = done.texts[0].pieces
    names = [piece.token for piece in pieces] if body.return_token_strs else None
    return json_response(TokenizeReply(len(pieces), done.max_tokens, [piece.id for piece in pieces], names))


@post("/detokenize", status_code=200)
async def detokenize(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await _read(request, _detokenize)
    job = DetokenizeJob(model=body.model or None, ids=tuple(body.tokens))
    return json_response({"prompt": await while_connected(request, service_of(request).detokenize(job))})


async def _read(request: AnyRequest, decoder: msgspec.json.Decoder[_T]) -> _T:
    try:
        return await read_body(request, decoder)
    except msgspec.ValidationError as error:
        raise errors.InputError(str(error)) from error


def _sides(body: ScoreRequest) -> tuple[list[str], list[str]]:
    """Take both lists in whichever spelling they came, and see that they can be paired."""
    spellings = (
        (body.queries, body.documents),
        (body.queries, body.items),
        (body.data_1, body.data_2),
        (body.text_1, body.text_2),
    )
    found = next(((one, two) for one, two in spellings if one is not None and two is not None), None)
    if found is None:
        raise errors.InputError("text_1 and text_2 are required, or queries with documents or items")
    first, second = ([side] if isinstance(side, str) else side for side in found)
    if len(first) > 1 and len(first) != len(second):
        raise errors.InputError("Input lengths must be either 1:1, 1:N or N:N")
    if not first:
        raise errors.EmptyInput("At least one text element must be given")
    if not second:
        raise errors.EmptyInput("At least one text_pair element must be given")
    return first, second


def _reply(done: Scored) -> ScoreReply:
    return ScoreReply(
        id=f"score-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=done.model,
        data=[_Score(index, "score", found) for index, found in enumerate(done.scores)],
        usage=_Usage(done.usage.tokens, done.usage.tokens),
    )


_BAD, _FAILED = "BadRequestError", "InternalServerError"
_KINDS: dict[type[errors.NearfarError], tuple[int, str]] = {
    errors.RequestError: (400, _BAD),
    errors.InputError: (400, _BAD),
    errors.MalformedBody: (400, _BAD),
    errors.BodyTooLarge: (413, _BAD),
    errors.NoModel: (400, _BAD),
    errors.EmptyInput: (400, _BAD),
    errors.TooMany: (400, _BAD),
    errors.TooLong: (400, _BAD),
    errors.TooManyTokens: (400, _BAD),
    errors.BadDimensions: (400, _BAD),
    errors.BadTokenIds: (400, _BAD),
    errors.WrongTask: (400, _BAD),
    errors.UnknownModel: (404, "NotFoundError"),
    errors.UnknownPath: (404, "NotFoundError"),
    errors.WrongMethod: (405, _BAD),
    errors.MissingKey: (401, "Unauthorized"),
    errors.WrongKey: (401, "Unauthorized"),
    errors.CallerGone: (499, _BAD),
    errors.ServingError: (500, _FAILED),
    errors.Overloaded: (429, "TooManyRequestsError"),
    errors.DeadlinePassed: (504, _FAILED),
    errors.NotReady: (503, "ServiceUnavailableError"),
    errors.Draining: (503, "ServiceUnavailableError"),
    errors.OutOfMemory: (413, _BAD),
    errors.EngineFailed: (500, _FAILED),
    errors.InternalFault: (500, _FAILED),
}
_PHRASES: dict[type[errors.NearfarError], Callable[[Any], str]] = {
    errors.UnknownModel: lambda error: f"The model `{error.model}` does not exist.",
    errors.ServingError: lambda _: "Internal server error",
    errors.EngineFailed: lambda _: "Internal server error",
    errors.InternalFault: lambda _: "Internal server error",
}
_ERRORS = {kind: ErrorRow(status, said, phrase=_PHRASES.get(kind)) for kind, (status, said) in _KINDS.items()}


def _render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:
    param = error.param if isinstance(error, errors.InputError) else None
    return {"error": {"message": sentence, "type": row.kind, "param": param, "code": row.status}}


dialect = Dialect(
    name="vllm",
    handlers=[score, detokenize],
    errors=_ERRORS,
    render_error=_render_error,
    prefixes=("/score", "/v1/score", "/tokenize", "/detokenize"),
    shared=[SharedRoute("/tokenize", "prompt", tokenize)],
)
