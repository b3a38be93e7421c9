"""TEI's routes that run a model, and those that show its tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from litestar import Request, Response, post

from nearfar.dialects.kit.request import cancel_on_disconnect, read_body, read_request
from nearfar.dialects.tei import embedding, ranking, tokens
from nearfar.dialects.tei.answering import respond
from nearfar.dialects.tei.bodies import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    TokenizeRequest,
    VertexRequest,
)
from nearfar.dialects.tei.described import (
    DECODE,
    EMBED,
    EMBED_ALL,
    EMBED_SPARSE,
    INVOKE,
    PREDICT,
    SIMILARITY,
    VERTEX,
)
from nearfar.dialects.tei.meant import answer_as_meant, answer_each

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nearfar.dialects.kit.base import AnyRequest
    from nearfar.dialects.tei.answering import Answered

_T = TypeVar("_T")
_embed = msgspec.json.Decoder(EmbedRequest)
_embed_all = msgspec.json.Decoder(EmbedAllRequest)
_rerank = msgspec.json.Decoder(RerankRequest)
_predict = msgspec.json.Decoder(PredictRequest)
_similarity = msgspec.json.Decoder(SimilarityRequest)
_tokenize = msgspec.json.Decoder(TokenizeRequest)
_decode = msgspec.json.Decoder(DecodeRequest)
_vertex = msgspec.json.Decoder(VertexRequest)
_any = msgspec.json.Decoder(msgspec.Raw)


async def _answer(
    request: AnyRequest,
    decoder: msgspec.json.Decoder[_T],
    work: Callable[[AnyRequest, _T], Coroutine[Any, Any, Answered]],
) -> Response[bytes]:
    body = await read_request(request, decoder)
    return respond(request, await cancel_on_disconnect(request, work(request, body)))


@post("/embed", status_code=200, opt=EMBED)
async def embed(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _answer(request, _embed, embedding.embed)


@post("/embed_all", status_code=200, opt=EMBED_ALL)
async def embed_all(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _answer(request, _embed_all, embedding.embed_all)


@post("/embed_sparse", status_code=200, opt=EMBED_SPARSE)
async def embed_sparse(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _answer(request, _embed_all, embedding.embed_sparse)


@post("/similarity", status_code=200, opt=SIMILARITY)
async def similarity(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _answer(request, _similarity, embedding.similarity)


@post("/predict", status_code=200, opt=PREDICT)
async def predict(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _answer(request, _predict, ranking.predict)


@post("/decode", status_code=200, opt=DECODE)
async def decode(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await tokens.decode(request, await read_request(request, _decode))


@post(["/", "/invocations"], status_code=200, opt=INVOKE)
async def invoke(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer what Hugging Face's clients and SageMaker send without a path: it is told by the body and the model."""
    raw = await read_body(request, _any)
    return respond(request, await cancel_on_disconnect(request, answer_as_meant(request, bytes(raw))))


@post("/vertex", status_code=200, opt=VERTEX)
async def vertex(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _vertex)
    return respond(request, await cancel_on_disconnect(request, answer_each(request, body.instances)))


async def rerank(request: AnyRequest) -> Response[bytes]:
    return await _answer(request, _rerank, ranking.rerank)


async def tokenize(request: AnyRequest) -> Response[bytes]:
    return await tokens.tokenize(request, await read_request(request, _tokenize))
