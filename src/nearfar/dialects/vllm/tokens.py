"""vLLM's routes for token vectors and tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from nearfar.core.errors import InputError
from nearfar.core.jobs import DetokenizeJob, Represented, RepresentJob, Tokenized, TokenizeJob
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import render_array
from nearfar.dialects.kit.route_docs import RouteDocs, RowsOfNumbers, json_schema
from nearfar.dialects.vllm.routes import ListReply, NotEmptyTexts, envelope, texts_of
from nearfar.serving.service import Service

TokenId = Annotated[int, json_schema(minimum=0)]


class PoolingRequest(Struct, kw_only=True):
    """The body of POST /pooling."""

    model: str | None = None
    input: NotEmptyTexts
    task: Annotated[str, json_schema(const="token_embed")] | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize for a plain prompt."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[TokenId]


class PoolingData(Struct):
    """A text's vectors, one for each token."""

    index: int
    data: RowsOfNumbers
    object: Literal["pooling"] = "pooling"


class TokenizeReply(Struct):
    """The body of an answer to /tokenize. ``token_strs`` are the tokens as in the vocabulary, if requested."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeReply(Struct):
    """The body of an answer to /detokenize."""

    prompt: str


def _pooling_job(body: PoolingRequest) -> RepresentJob:
    if body.task not in {None, "token_embed"}:
        raise InputError("task: only token_embed is supported; for other tasks use /v1/embeddings and /classify")
    return RepresentJob(model=body.model or None, inputs=texts_of(body.input), outputs=("multi_vector",))


def _pooling_reply(_: PoolingRequest, __: RepresentJob, done: Represented) -> ListReply[PoolingData]:
    vectors = [text.multi_vector for text in done.texts if text.multi_vector is not None]
    data = [PoolingData(index, render_array(one)) for index, one in enumerate(vectors)]
    return ListReply(data=data, **envelope("pool", done))


def _tokenize_job(body: TokenizeRequest) -> TokenizeJob:
    return TokenizeJob(model=body.model or None, texts=(body.prompt,), special=body.add_special_tokens is not False)


def _tokenize_reply(body: TokenizeRequest, _: TokenizeJob, done: Tokenized) -> TokenizeReply:
    tokens = done.texts[0].tokens
    names = [token.token for token in tokens] if body.return_token_strs else None
    return TokenizeReply(len(tokens), done.info.max_tokens, [token.id for token in tokens], names)


def _detokenize_job(body: DetokenizeRequest) -> DetokenizeJob:
    return DetokenizeJob(model=body.model or None, ids=tuple(body.tokens))


_POOLING = RouteDocs(
    summary="Embed each token of texts",
    body=PoolingRequest,
    reply=ListReply[PoolingData],
    example={"input": "a cat", "task": "token_embed"},
)
POOLING = Endpoint(_POOLING, _pooling_job, Service.represent, _pooling_reply)
_TOKENIZE = RouteDocs(
    summary="Tokenize a prompt", counts=False, body=TokenizeRequest, reply=TokenizeReply, example={"prompt": "a cat"}
)
TOKENIZE = Endpoint(_TOKENIZE, _tokenize_job, Service.tokenize, _tokenize_reply)
_DETOKENIZE = RouteDocs(
    summary="Convert token ids to text",
    counts=False,
    body=DetokenizeRequest,
    reply=DetokenizeReply,
    example={"tokens": [1037, 4937]},
)
DETOKENIZE = Endpoint(_DETOKENIZE, _detokenize_job, Service.detokenize, lambda _, __, text: DetokenizeReply(text))
