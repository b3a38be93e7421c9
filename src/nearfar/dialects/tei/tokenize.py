"""TEI's tokenization: texts → tokens with their offsets, and token ids → texts."""

from __future__ import annotations

from itertools import accumulate
from typing import cast

from nearfar.core.caller import Caller
from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import DetokenizeJob, TokenizedText, TokenizeJob, TokenSpan
from nearfar.core.types import TokenIds
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.route_docs import RouteDocs
from nearfar.dialects.tei.bodies import DecodeRequest, Token, TokenizeRequest
from nearfar.dialects.tei.inputs import check_count
from nearfar.serving.service import Service


def _tokenize_job(body: TokenizeRequest) -> TokenizeJob:
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_count("inputs", texts)
    special = True if body.add_special_tokens is None else body.add_special_tokens
    return TokenizeJob(model=body.model or None, texts=tuple(texts), special=special, prompt=body.prompt_name)


def _tokens(text: TokenizedText) -> list[Token]:
    """Convert a text's tokens; offsets are in bytes of UTF-8, as in TEI."""
    byte_offsets = [0, *accumulate(len(character.encode()) for character in text.text)]
    return [_token(token, text.text, byte_offsets) for token in text.tokens]


def _token(token: TokenSpan, text: str, byte_offsets: list[int]) -> Token:
    if token.special:
        return Token(token.id, token.token, special=True, start=None, stop=None)
    start, stop = byte_offsets[token.start], byte_offsets[token.stop]
    return Token(token.id, text[token.start : token.stop], special=False, start=start, stop=stop)


def _detokenize_jobs(body: DecodeRequest) -> list[DetokenizeJob]:
    texts = _parse_ids(body.ids)
    check_count("ids", texts)
    special = body.skip_special_tokens is False
    return [DetokenizeJob(model=body.model or None, ids=ids, special=special) for ids in texts]


def _parse_ids(ids: list[int | list[int]]) -> list[TokenIds]:
    if not ids:
        raise EmptyInput("`ids` cannot be empty")
    if all(isinstance(one, int) for one in ids):
        return [cast("TokenIds", tuple(ids))]
    if any(isinstance(one, int) for one in ids):
        raise InputError("`ids` must be the token ids of a text, or a list of such lists")
    return [tuple(one) for one in cast("list[list[int]]", ids)]


async def _detokenize_all(service: Service, jobs: list[DetokenizeJob], caller: Caller) -> list[str]:
    return [await service.detokenize(job, caller) for job in jobs]


_TOKENIZE = RouteDocs(
    summary="Tokenize texts",
    counts=False,
    body=TokenizeRequest,
    reply=list[list[Token]],
    example={"inputs": "a cat"},
    answers=("tokens",),
)
TOKENIZE = Endpoint(
    _TOKENIZE, _tokenize_job, Service.tokenize, lambda _, __, done: [_tokens(text) for text in done.texts]
)
_DECODE = RouteDocs(
    summary="Decode token ids",
    answers=("tokens",),
    counts=False,
    body=DecodeRequest,
    reply=list[str],
    example={"ids": [101, 7592, 102]},
    examples={"several": {"ids": [[101, 7592, 102], [2088]], "skip_special_tokens": False}},
)
DECODE = Endpoint(_DECODE, _detokenize_jobs, _detokenize_all, lambda _, __, texts: texts)
