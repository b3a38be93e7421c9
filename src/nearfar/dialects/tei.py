"""Text-embeddings-inference's similarity and tokenize: https://huggingface.github.io/text-embeddings-inference."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from litestar import Request, Response, post
from msgspec import Struct

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
from nearfar.types import EmbedJob, TokenizeJob

if TYPE_CHECKING:
    from nearfar.config import OnOverflow
    from nearfar.dialects import AnyRequest
    from nearfar.types import Piece, TokenizedText

_T = TypeVar("_T")


class _Sentences(Struct, kw_only=True):
    source_sentence: str
    sentences: list[str]


class _Parameters(Struct, kw_only=True):
    truncate: bool | None = None
    truncation_direction: str | None = None
    prompt_name: str | None = None


class SimilarityRequest(Struct, kw_only=True):
    """The body of POST /similarity. TEI serves one model, so ``model`` is ours: absent, it is the default one."""

    inputs: _Sentences
    parameters: _Parameters | None = None
    model: str | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


class _Token(Struct):
    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


_similarity = msgspec.json.Decoder(SimilarityRequest)
_tokenize = msgspec.json.Decoder(TokenizeRequest)


@post("/similarity", status_code=200)
async def similarity(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await _read(request, _similarity)
    if not body.inputs.sentences:
        raise errors.EmptyInput("`inputs.sentences` cannot be empty")
    how = body.parameters or _Parameters()
    job = EmbedJob(
        model=body.model or None,
        inputs=(body.inputs.source_sentence, *body.inputs.sentences),
        prompt=how.prompt_name,
        keep="end" if _is_left(how.truncation_direction) else "start",
        on_overflow=_on_overflow(truncate=how.truncate),
    )
    done = await while_connected(request, service_of(request).similarity(job))
    return json_response(done.scores, headers=report(request, done.model, len(job.inputs), done.usage))


async def tokenize(request: AnyRequest) -> Response[bytes]:
    body = await _read(request, _tokenize)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if not texts:
        raise errors.EmptyInput("`inputs` cannot be empty")
    job = TokenizeJob(
        model=body.model or None, texts=tuple(texts), special=body.add_special_tokens, prompt=body.prompt_name
    )
    done = await while_connected(request, service_of(request).tokenize(job))
    return json_response([_tokens(shown) for shown in done.texts])


async def _read(request: AnyRequest, decoder: msgspec.json.Decoder[_T]) -> _T:
    try:
        return await read_body(request, decoder)
    except msgspec.ValidationError as error:
        raise errors.InputError(str(error)) from error


def _is_left(direction: str | None) -> bool:
    if direction is not None and direction.lower() not in {"left", "right"}:
        raise errors.InputError(f"unknown variant `{direction[:50]}`, expected `Left` or `Right`")
    return direction is not None and direction.lower() == "left"


def _on_overflow(*, truncate: bool | None) -> OnOverflow | None:
    if truncate is None:
        return None
    return "truncate" if truncate else "error"


def _tokens(shown: TokenizedText) -> list[_Token]:
    """Tell where each token lies, in bytes of UTF-8 as TEI counts; special tokens lie nowhere."""
    at = [0, *accumulate(len(character.encode()) for character in shown.text)]
    return [_token(piece, shown.text, at) for piece in shown.pieces]


def _token(piece: Piece, text: str, at: list[int]) -> _Token:
    if piece.special:
        return _Token(piece.id, piece.token, special=True, start=None, stop=None)
    return _Token(piece.id, text[piece.start : piece.stop], special=False, start=at[piece.start], stop=at[piece.stop])


def _invalid(error: errors.RequestError) -> str:
    return f"Input validation error: {error}"


_FAILED = ErrorRow(424, "Backend", phrase=lambda _: "Inference failed; the server's log says why")
_ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    errors.RequestError: ErrorRow(422, "Validation", phrase=_invalid),
    errors.InputError: ErrorRow(422, "Validation", phrase=_invalid),
    errors.MalformedBody: ErrorRow(
        400, "Validation", phrase=lambda error: f"Failed to parse the request body: {error}"
    ),
    errors.BodyTooLarge: ErrorRow(413, "Validation"),
    errors.NoModel: ErrorRow(422, "Validation", phrase=_invalid),
    errors.EmptyInput: ErrorRow(400, "Empty"),
    errors.TooMany: ErrorRow(422, "Validation", phrase=_invalid),
    errors.TooLong: ErrorRow(
        422,
        "Validation",
        phrase=lambda error: (
            f"Input validation error: `inputs` must have at most {error.limit} tokens. Given: {error.tokens}"
        ),
    ),
    errors.TooManyTokens: ErrorRow(422, "Validation", phrase=_invalid),
    errors.BadDimensions: ErrorRow(422, "Validation", phrase=_invalid),
    errors.BadTokenIds: ErrorRow(422, "Tokenizer"),
    errors.UnknownModel: ErrorRow(404, "Validation"),
    errors.WrongTask: ErrorRow(
        422, "Validation", phrase=lambda error: f"model {error.model} is not an embedding model"
    ),
    errors.UnknownPath: ErrorRow(404, "Validation"),
    errors.WrongMethod: ErrorRow(405, "Validation"),
    errors.MissingKey: ErrorRow(401, "Unauthorized"),
    errors.WrongKey: ErrorRow(401, "Unauthorized"),
    errors.CallerGone: ErrorRow(499, "Validation"),
    errors.ServingError: _FAILED,
    errors.Overloaded: ErrorRow(429, "Overloaded", phrase=lambda _: "Model is overloaded"),
    errors.DeadlinePassed: ErrorRow(504, "Backend"),
    errors.NotReady: ErrorRow(503, "Unhealthy"),
    errors.Draining: ErrorRow(503, "Unhealthy"),
    errors.OutOfMemory: ErrorRow(413, "Validation"),
    errors.EngineFailed: _FAILED,
    errors.InternalFault: _FAILED,
}


def _render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    return {"error": sentence, "error_type": row.kind}


dialect = Dialect(
    name="tei",
    handlers=[similarity],
    errors=_ERRORS,
    render_error=_render_error,
    prefixes=("/similarity",),
    shared=[SharedRoute("/tokenize", "inputs", tokenize)],
)
