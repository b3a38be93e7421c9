"""OpenAI's embeddings and models, in its words: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath
from msgspec import Struct

from nearfar.dialects import Dialect, SharedRoute, encoded_response, fleet_of, json_response, report, service_of
from nearfar.dialects.described import NOT_EMPTY, Described, NumbersOrBase64, described, needing
from nearfar.dialects.openai.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.openai.request import EmbeddingsRequest, bad_shape, decoder, encoding_of, to_job
from nearfar.dialects.reading import read_body, while_connected
from nearfar.dialects.vectors import render_reply

if TYPE_CHECKING:
    from nearfar.dialects import AnyRequest
    from nearfar.jobs import Embedded
    from nearfar.types import ModelInfo, Task


class Embedding(Struct, kw_only=True):
    """One input's vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: NumbersOrBase64


class Tokens(Struct):
    """Tokens that went through the model."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Tokens


class ModelReply(Struct, kw_only=True):
    """One model, as OpenAI lists it, and what its numbers mean: ``/info`` says the rest."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    score: str
    score_is_probability: bool
    int8_range: float | None


class ModelsReply(Struct, kw_only=True):
    """The body of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


_MODEL = {
    "id": "text-embedding-3-small",
    "object": "model",
    "created": 1764000000,
    "owned_by": "sentence-transformers",
    "score": "(1 + cosine) / 2 of the query's and the document's vectors",
    "score_is_probability": False,
    "int8_range": 0.204124,
}


async def create_embeddings(request: AnyRequest) -> Response[bytes]:
    started = time.perf_counter()
    try:
        body = await read_body(request, decoder)
        job, encoding = to_job(body), encoding_of(body.encoding_format)
    except msgspec.ValidationError as error:
        raise bad_shape(error) from error
    done = await while_connected(request, service_of(request).embed(job))
    encoded = await render_reply(done.vectors, encoding, lambda rendered: _reply(done, rendered))
    headers = report(request, done.model, len(done.vectors), done.usage)
    headers["openai-model"] = done.model
    headers["openai-processing-ms"] = str(round((time.perf_counter() - started) * 1000))
    headers["openai-version"] = "2020-10-01"
    return encoded_response(encoded, headers=headers)


@get("/v1/models", opt=described("What is served", reply=ModelsReply, reply_example={"data": [_MODEL]}))
async def list_models(request: Request[Any, Any, Any]) -> Response[bytes]:
    fleet = fleet_of(request)
    fleet.refuse_unready()
    listed = [_model(info, name) for info in fleet.infos() for name in (info.name, *info.aliases)]
    return json_response(ModelsReply(data=listed))


@get(
    "/v1/models/{model_id:path}",
    opt=described("One model", reply=ModelReply, reply_example=_MODEL, path={"model_id": "text-embedding-3-small"}),
)
async def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[bytes]:
    name = model_id.removeprefix("/")
    return json_response(_model(fleet_of(request).describe(name), name))


def _reply(done: Embedded, rendered: list[msgspec.Raw]) -> EmbeddingsReply:
    return EmbeddingsReply(
        data=[Embedding(index=index, embedding=vector) for index, vector in enumerate(rendered)],
        model=done.model,
        usage=Tokens(prompt_tokens=done.usage.tokens, total_tokens=done.usage.tokens),
    )


def _model(info: ModelInfo, name: str) -> ModelReply:
    owner, slash, _ = info.name.partition("/")
    return ModelReply(
        id=name,
        created=info.created,
        owned_by=owner if slash else "nearfar",
        score=info.score,
        score_is_probability=info.score_is_probability,
        int8_range=info.int8_range,
    )


_VENDOR_MODELS: dict[str, Task] = dict.fromkeys(
    ("text-embedding-ada-002", "text-embedding-ada-002-v2", "text-embedding-3-small", "text-embedding-3-large"), "embed"
)

_EMBEDDINGS = Described(
    summary="Vectors of texts, or of token ids",
    body=needing(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingsReply,
    example={"model": "text-embedding-3-small", "input": ["a cat on the sofa"]},
    examples={"token ids": {"model": "text-embedding-3-small", "input": [[64, 8415], [389, 279, 32169]]}},
    reply_example={
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1431, -0.0766, -0.0241]}],
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    },
    headers={
        "openai-model": "The model that answered",
        "openai-processing-ms": "Milliseconds that the answer took",
        "openai-version": "The version of the protocol",
    },
)

dialect = Dialect(
    name="openai",
    handlers=[list_models, get_model],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    prefixes=("/v1", "/v1/embeddings", "/embeddings"),
    vendor_models=_VENDOR_MODELS,
    shared=[
        SharedRoute(path=path, answer=create_embeddings, described=_EMBEDDINGS)
        for path in ("/v1/embeddings", "/embeddings")
    ],
)
