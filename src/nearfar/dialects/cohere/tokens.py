"""Cohere's tokenize and detokenize: https://docs.cohere.com/reference/tokenize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from litestar import Request, Response, post
from msgspec import Struct

from nearfar import errors
from nearfar.dialects import json_response, service_of
from nearfar.dialects.cohere.envelope import Meta, meta_example, named
from nearfar.dialects.described import NOT_EMPTY, described, documented, needing
from nearfar.dialects.reading import read_request, while_connected
from nearfar.jobs import DetokenizeJob, TokenizeJob

if TYPE_CHECKING:
    from nearfar.jobs import TokenizedText

_MOST = 65_536  # characters of a text, and tokens
TokenId = Annotated[int, documented(minimum=0)]


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /v1/tokenize."""

    model: str | None = None
    text: Annotated[str, documented(minLength=1, maxLength=_MOST)]


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /v1/detokenize."""

    model: str | None = None
    tokens: Annotated[list[TokenId], documented(minItems=1, maxItems=_MOST)]


class TokenizeReply(Struct):
    """The tokens of a text, and the parts of it that they stand for."""

    tokens: list[int]
    token_strings: list[str]
    meta: Meta


class DetokenizeReply(Struct):
    """The text that tokens stand for."""

    text: str
    meta: Meta


_tokenize = msgspec.json.Decoder(TokenizeRequest)
_detokenize = msgspec.json.Decoder(DetokenizeRequest)


@post(
    "/v1/tokenize",
    status_code=200,
    opt=described(
        "Tokens of a text, as the model reads it",
        body=needing(TokenizeRequest, model=NOT_EMPTY),
        reply=TokenizeReply,
        example={"model": "embed-english-v3.0", "text": "tokenize me"},
        reply_example={
            "tokens": [19204, 4697, 2033],
            "token_strings": ["token", "ize", " me"],
            "meta": meta_example("1"),
        },
    ),
)
async def tokenize(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _tokenize)
    model = named(body.model)
    if not 1 <= len(body.text) <= _MOST:
        raise errors.InputError(f"text must have from 1 to {_MOST} characters - received {len(body.text)}")
    job = TokenizeJob(model=model, texts=(body.text,), special=False)
    (shown,) = (await while_connected(request, service_of(request).tokenize(job))).texts
    return json_response(TokenizeReply([piece.id for piece in shown.pieces], _strings(shown), Meta({"version": "1"})))


@post(
    "/v1/detokenize",
    status_code=200,
    opt=described(
        "The text that tokens stand for",
        body=needing(DetokenizeRequest, model=NOT_EMPTY),
        reply=DetokenizeReply,
        example={"model": "embed-english-v3.0", "tokens": [19204, 4697, 2033]},
        reply_example={"text": "tokenize me", "meta": meta_example("1")},
    ),
)
async def detokenize(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _detokenize)
    model = named(body.model)
    if not 1 <= len(body.tokens) <= _MOST:
        raise errors.InputError(f"tokens must have from 1 to {_MOST} items - received {len(body.tokens)}")
    job = DetokenizeJob(model=model, ids=tuple(body.tokens))
    return json_response(
        DetokenizeReply(await while_connected(request, service_of(request).detokenize(job)), Meta({"version": "1"}))
    )


def _strings(shown: TokenizedText) -> list[str]:
    """Part the text among its tokens, with nothing left out: Dify joins them again and embeds that.

    Blanks that no token stands for go to the token after them, and those at the end to the last. Where several tokens
    stand for one character, the first has it.
    """
    strings, at = [], 0
    for piece in shown.pieces:
        stop = max(at, piece.stop)
        strings.append(shown.text[at:stop])
        at = stop
    if strings:
        strings[-1] += shown.text[at:]
    return strings
