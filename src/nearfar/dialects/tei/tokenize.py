"""TEI's tokenization: texts → tokens with their offsets, and token ids → texts."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

import msgspec
from litestar import Request, Response, post

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import DetokenizeJob, TokenizeJob
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import caller_of, cancel_on_disconnect, read_request, service_of
from nearfar.dialects.tei.bodies import DecodeRequest, Token, TokenizeRequest
from nearfar.dialects.tei.inputs import check_count
from nearfar.dialects.tei.route_docs import DECODE

if TYPE_CHECKING:
    from nearfar.core.jobs import TokenizedText, TokenSpan
    from nearfar.core.types import TokenIds
    from nearfar.dialects.kit.request import AnyRequest

_tokenize = msgspec.json.Decoder(TokenizeRequest)
_decode = msgspec.json.Decoder(DecodeRequest)


async def tokenize(request: AnyRequest) -> Response[bytes]:
    body = await read_request(request, _tokenize)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_count("inputs", texts)
    special = True if body.add_special_tokens is None else body.add_special_tokens
    job = TokenizeJob(model=body.model or None, texts=tuple(texts), special=special, prompt=body.prompt_name)
    done = await cancel_on_disconnect(request, service_of(request).tokenize(job, caller_of(request.scope)))
    return json_response([_tokens(text) for text in done.texts])


@post("/decode", status_code=200, opt=DECODE)
async def decode(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _decode)
    texts = _parse_ids(body.ids)
    check_count("ids", texts)
    special = body.skip_special_tokens is False
    jobs = [DetokenizeJob(model=body.model or None, ids=ids, special=special) for ids in texts]

    async def run() -> list[str]:
        return [await service_of(request).detokenize(job, caller_of(request.scope)) for job in jobs]

    return json_response(await cancel_on_disconnect(request, run()))


def _parse_ids(ids: list[int | list[int]]) -> list[TokenIds]:
    if not ids:
        raise EmptyInput("`ids` cannot be empty")
    if all(isinstance(one, int) for one in ids):
        return [cast("TokenIds", tuple(ids))]
    if any(isinstance(one, int) for one in ids):
        raise InputError("`ids` must be the token ids of a text, or a list of such lists")
    return [tuple(one) for one in cast("list[list[int]]", ids)]


def _tokens(text: TokenizedText) -> list[Token]:
    """Convert a text's tokens; offsets are in bytes of UTF-8, as in TEI."""
    byte_offsets = [0, *accumulate(len(character.encode()) for character in text.text)]
    return [_token(piece, text.text, byte_offsets) for piece in text.tokens]


def _token(piece: TokenSpan, text: str, byte_offsets: list[int]) -> Token:
    if piece.special:
        return Token(piece.id, piece.token, special=True, start=None, stop=None)
    start, stop = byte_offsets[piece.start], byte_offsets[piece.stop]
    return Token(piece.id, text[piece.start : piece.stop], special=False, start=start, stop=stop)
