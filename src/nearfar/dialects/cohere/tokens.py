"""Cohere's tokenize and detokenize: https://docs.cohere.com/reference/tokenize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post

from nearfar.core import errors
from nearfar.core.jobs import DetokenizeJob, TokenizeJob
from nearfar.dialects.cohere.bodies import (
    MAX_SHOWN,
    DetokenizeReply,
    DetokenizeRequest,
    TokenizeReply,
    TokenizeRequest,
)
from nearfar.dialects.cohere.envelope import USUAL_HEADERS, ApiVersion, Meta, meta_example, named, usual_headers
from nearfar.dialects.kit.base import json_response, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request
from nearfar.dialects.kit.route_docs import NOT_EMPTY, requires, route_docs

if TYPE_CHECKING:
    from nearfar.core.jobs import TokenizedText

_TOKENIZE = route_docs(
    "Tokens of a text, as the model reads it",
    body=requires(TokenizeRequest, model=NOT_EMPTY),
    counts=False,
    reply=TokenizeReply,
    example={"model": "embed-v4.0", "text": "hello world"},
    reply_example={"tokens": [7592, 2088], "token_strings": ["hello", " world"], "meta": meta_example("1")},
    headers=USUAL_HEADERS,
)
_DETOKENIZE = route_docs(
    "Text of tokens of the model's own vocabulary",
    body=requires(DetokenizeRequest, model=NOT_EMPTY),
    counts=False,
    reply=DetokenizeReply,
    example={"model": "embed-v4.0", "tokens": [7592, 2088]},
    reply_example={"text": "hello world", "meta": meta_example("1")},
    headers=USUAL_HEADERS,
)
_tokenize = msgspec.json.Decoder(TokenizeRequest)
_detokenize = msgspec.json.Decoder(DetokenizeRequest)


@post(["/v1/tokenize", "/v1/v1/tokenize"], status_code=200, opt=_TOKENIZE)
async def tokenize(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _tokenize)
    model = named(body.model)
    if not 1 <= len(body.text) <= MAX_SHOWN:
        raise errors.InputError(f"text must have from 1 to {MAX_SHOWN} characters - received {len(body.text)}")
    job = TokenizeJob(model=model, texts=(body.text,), special=False)
    (shown,) = (await cancel_on_disconnect(request, service_of(request).tokenize(job, caller_of(request.scope)))).texts
    reply = TokenizeReply([piece.id for piece in shown.tokens], _strings(shown), Meta(ApiVersion("1")))
    return json_response(reply, headers=usual_headers(request))


@post(["/v1/detokenize", "/v1/v1/detokenize"], status_code=200, opt=_DETOKENIZE)
async def detokenize(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _detokenize)
    model = named(body.model)
    if not 1 <= len(body.tokens) <= MAX_SHOWN:
        raise errors.InputError(f"tokens must have from 1 to {MAX_SHOWN} items - received {len(body.tokens)}")
    job = DetokenizeJob(model=model, ids=tuple(body.tokens))
    text = await cancel_on_disconnect(request, service_of(request).detokenize(job, caller_of(request.scope)))
    return json_response(DetokenizeReply(text, Meta(ApiVersion("1"))), headers=usual_headers(request))


def _strings(shown: TokenizedText) -> list[str]:
    """Part the text among its tokens, with nothing left out: Dify joins them again and embeds that.

    Blanks that no token stands for go to the token after them, and those at the end to the last. Where several tokens
    stand for one character, the first has it.
    """
    strings, at = [], 0
    for piece in shown.tokens:
        stop = max(at, piece.stop)
        strings.append(shown.text[at:stop])
        at = stop
    if strings:
        strings[-1] += shown.text[at:]
    return strings
