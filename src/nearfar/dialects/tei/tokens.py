"""Texts → tokens as the model reads them, and back."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, cast

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import DetokenizeJob, TokenizeJob
from nearfar.dialects.kit.base import json_response, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.request import cancel_on_disconnect
from nearfar.dialects.tei.bodies import Token
from nearfar.dialects.tei.inputs import refuse_many

if TYPE_CHECKING:
    from litestar import Response

    from nearfar.core.jobs import Piece, TokenizedText
    from nearfar.core.types import TokenIds
    from nearfar.dialects.kit.base import AnyRequest
    from nearfar.dialects.tei.bodies import DecodeRequest, TokenizeRequest


async def tokenize(request: AnyRequest, body: TokenizeRequest) -> Response[bytes]:
    """Show every token of each text."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if not texts:
        raise EmptyInput("`inputs` cannot be empty")
    refuse_many("inputs", len(texts))
    special = True if body.add_special_tokens is None else body.add_special_tokens
    job = TokenizeJob(model=body.model or None, texts=tuple(texts), special=special, prompt=body.prompt_name)
    done = await cancel_on_disconnect(request, service_of(request).tokenize(job, caller_of(request.scope)))
    return json_response([_tokens(shown) for shown in done.texts])


async def decode(request: AnyRequest, body: DecodeRequest) -> Response[bytes]:
    """Turn the ids of each text back into text."""
    texts = _ids_of(body.ids)
    refuse_many("ids", len(texts))
    special = body.skip_special_tokens is False
    jobs = [DetokenizeJob(model=body.model or None, ids=ids, special=special) for ids in texts]

    async def work() -> list[str]:
        return [await service_of(request).detokenize(job, caller_of(request.scope)) for job in jobs]

    return json_response(await cancel_on_disconnect(request, work()))


def _ids_of(said: list[int | list[int]]) -> list[TokenIds]:
    if not said:
        raise EmptyInput("`ids` cannot be empty")
    if all(isinstance(one, int) for one in said):
        return [cast("TokenIds", tuple(said))]
    if any(isinstance(one, int) for one in said):
        raise InputError("`ids` must be the token ids of one text, or a list of those of several")
    return [tuple(ids) for ids in cast("list[list[int]]", said)]


def _tokens(shown: TokenizedText) -> list[Token]:
    """Tell where each token lies, in bytes of UTF-8 as TEI counts; special tokens lie nowhere."""
    at = [0, *accumulate(len(character.encode()) for character in shown.text)]
    return [_token(piece, shown.text, at) for piece in shown.pieces]


def _token(piece: Piece, text: str, at: list[int]) -> Token:
    if piece.special:
        return Token(piece.id, piece.token, special=True, start=None, stop=None)
    return Token(piece.id, text[piece.start : piece.stop], special=False, start=at[piece.start], stop=at[piece.stop])
