"""Cohere's tokenize and detokenize, and the check of a key: https://docs.cohere.com/reference/tokenize."""

from __future__ import annotations

from typing import Annotated

from litestar import Response
from msgspec import Struct

from nearfar.core import errors
from nearfar.core.jobs import DetokenizeJob, Tokenized, TokenizedText, TokenizeJob
from nearfar.dialects.cohere.envelope import USUAL_HEADERS, Meta, meta, usual_headers
from nearfar.dialects.kit.checks import require_model
from nearfar.dialects.kit.endpoint import Endpoint, PostRoute, json_response
from nearfar.dialects.kit.request import AnyRequest
from nearfar.dialects.kit.route_docs import NOT_EMPTY, RouteDocs, json_schema, requires
from nearfar.serving.service import Service

_MAX_SHOWN = 65_536  # characters of a text to tokenize, and tokens


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /v1/tokenize."""

    model: str | None = None
    text: Annotated[str, json_schema(minLength=1, maxLength=_MAX_SHOWN)]


class TokenizeReply(Struct):
    """The body of a response: the tokens' ids and the text of each, which joined are the whole text."""

    tokens: list[int]
    token_strings: list[str]
    meta: Meta


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /v1/detokenize."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, json_schema(minimum=0)]], json_schema(minItems=1, maxItems=_MAX_SHOWN)]


class DetokenizeReply(Struct):
    """The body of a response."""

    text: str
    meta: Meta


class KeyReply(Struct):
    """The body of POST /v1/check-api-key's response; an invalid key gets an error."""

    valid: bool


_TOKENIZE = RouteDocs(
    summary="Tokens of a text, as the model reads it",
    answers=("tokens",),
    body=requires(TokenizeRequest, model=NOT_EMPTY),
    counts=False,
    reply=TokenizeReply,
    example={"model": "embed-v4.0", "text": "hello world"},
    reply_example={"tokens": [7592, 2088], "token_strings": ["hello", " world"], "meta": meta("1")},
    headers=USUAL_HEADERS,
)
_DETOKENIZE = RouteDocs(
    summary="Text of tokens of the model's own vocabulary",
    answers=("tokens",),
    body=requires(DetokenizeRequest, model=NOT_EMPTY),
    counts=False,
    reply=DetokenizeReply,
    example={"model": "embed-v4.0", "tokens": [7592, 2088]},
    reply_example={"text": "hello world", "meta": meta("1")},
    headers=USUAL_HEADERS,
)
_CHECK = RouteDocs(
    summary="Whether the key is valid",
    answers=("descriptions",),
    details="Confirms the key: a request with a wrong one is refused before. The clients send no body.",
    reply=KeyReply,
    headers=USUAL_HEADERS,
)


def _to_tokenize_job(body: TokenizeRequest) -> TokenizeJob:
    model = require_model(body.model)
    if not 1 <= len(body.text) <= _MAX_SHOWN:
        raise errors.InputError(f"text must have from 1 to {_MAX_SHOWN} characters - received {len(body.text)}")
    return TokenizeJob(model=model, texts=(body.text,), special=False)


def _to_detokenize_job(body: DetokenizeRequest) -> DetokenizeJob:
    model = require_model(body.model)
    if not 1 <= len(body.tokens) <= _MAX_SHOWN:
        raise errors.InputError(f"tokens must have from 1 to {_MAX_SHOWN} items - received {len(body.tokens)}")
    return DetokenizeJob(model=model, ids=tuple(body.tokens))


def _tokenize_reply(_: TokenizeRequest, __: TokenizeJob, done: Tokenized) -> TokenizeReply:
    (shown,) = done.texts
    return TokenizeReply([piece.id for piece in shown.tokens], _strings(shown), meta("1"))


def _detokenize_reply(_: DetokenizeRequest, __: DetokenizeJob, done: str) -> DetokenizeReply:
    return DetokenizeReply(done, meta("1"))


def _strings(shown: TokenizedText) -> list[str]:
    """Return each token's part of the text. Joined they are the whole text, which Dify embeds.

    White space between tokens belongs to the next token, and at the end to the last. A character of several tokens
    belongs to the first.
    """
    strings, at = [], 0
    for piece in shown.tokens:
        stop = max(at, piece.stop)
        strings.append(shown.text[at:stop])
        at = stop
    if strings:
        strings[-1] += shown.text[at:]
    return strings


TOKENIZE = Endpoint(_TOKENIZE, _to_tokenize_job, Service.tokenize, _tokenize_reply, headers=usual_headers)
DETOKENIZE = Endpoint(_DETOKENIZE, _to_detokenize_job, Service.detokenize, _detokenize_reply, headers=usual_headers)


async def _check_api_key(request: AnyRequest) -> Response[bytes]:
    """Confirm the key: a request with a wrong one doesn't get here. The clients send no body."""
    return json_response(KeyReply(valid=True), headers=usual_headers(request))


CHECK_API_KEY = PostRoute(paths=("/v1/check-api-key", "/v1/v1/check-api-key"), handler=_check_api_key, docs=_CHECK)
