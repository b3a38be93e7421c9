"""Ollama's embeddings, and a rerank route in their style. Null means absent; unknown fields are ignored."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from msgspec import Meta, Struct

from nearfar.core.jobs import EmbedJob, RankJob
from nearfar.core.types import Task
from nearfar.dialects.kit.checks import overflow_of, require_model
from nearfar.dialects.kit.endpoint import encoded_response, json_response, record_usage
from nearfar.dialects.kit.rendering import encode_json, render_rows
from nearfar.dialects.kit.request import AnyRequest, caller_of, cancel_on_disconnect, fleet_of, read_request, service_of
from nearfar.dialects.kit.route_docs import NOT_EMPTY, NotBlank, Numbers, json_schema, requires, route_docs
from nearfar.dialects.ollama.unload import MODEL_EXAMPLE, KeepAlive, is_zero


class Options(Struct, kw_only=True):
    """The only one of Ollama's options that has an effect: the most tokens of a text, special tokens not counted."""

    num_ctx: float | None = None  # clients in JavaScript and Lua may send 512.0


class TextRequest(Struct, kw_only=True):
    """What requests for embeddings have in common.

    ``keep_alive`` of 0 without input unloads the model. Otherwise it has no effect: several programs share this
    server, so its settings ``idle_timeout_s`` and ``pin`` decide how long a model stays.
    """

    model: str | None = None
    options: Options | None = None
    keep_alive: KeepAlive | None = None

    @property
    def max_tokens(self) -> int | None:
        """Return the caller's limit of a text's tokens, or None."""
        num_ctx = self.options and self.options.num_ctx
        return int(num_ctx) if num_ctx and num_ctx >= 1 else None


class EmbedRequest(TextRequest, kw_only=True):
    """The body of POST /api/embed."""

    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class EmbedReply(Struct, kw_only=True, omit_defaults=True):
    """The body of an answer to /api/embed. Durations are in nanoseconds."""

    model: str
    embeddings: list[Numbers]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingsRequest(TextRequest, kw_only=True):
    """The body of POST /api/embeddings, the older form of /api/embed."""

    prompt: str | None = None


class EmbeddingsReply(Struct):
    """The body of an answer to /api/embeddings: a unit vector, or an empty list for an empty prompt."""

    embedding: Numbers


class RerankRequest(Struct, kw_only=True):
    """The body of POST /api/rerank, as in the changes proposed to Ollama, which has no such route."""

    model: str | None = None
    query: NotBlank
    documents: Annotated[list[str], json_schema(minItems=1)]
    top_n: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    instruction: str | None = None
    keep_alive: KeepAlive | None = None


class Document(Struct):
    """A document of the request."""

    text: str


class RerankResult(Struct, omit_defaults=True):
    """A document's index and score; with ``return_documents`` also the document."""

    index: int
    relevance_score: float
    document: Document | msgspec.UnsetType = msgspec.UNSET


class RerankReply(Struct, kw_only=True):
    """The body of an answer to /api/rerank, best first. Durations are in nanoseconds."""

    model: str
    results: list[RerankResult]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


_EMBED = route_docs(
    "Embed texts, as in Ollama",
    body=requires(EmbedRequest, model=NOT_EMPTY),
    reply=EmbedReply,
    example={"model": MODEL_EXAMPLE, "input": ["a cat on the sofa"]},
)
_EMBEDDINGS = route_docs(
    "Embed one text, as older clients of Ollama do",
    body=requires(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingsReply,
    example={"model": MODEL_EXAMPLE, "prompt": "a cat on the sofa"},
)
_RERANK = route_docs(
    "Rank documents by relevance to a query, an addition to Ollama's routes",
    body=requires(RerankRequest, model=NOT_EMPTY),
    reply=RerankReply,
    example={
        "model": MODEL_EXAMPLE,
        "query": "Where is the cat?",
        "documents": ["Bananas are yellow.", "The cat sat on the mat."],
        "top_n": 1,
    },
)

_NOTHING_TRUNCATED = {"x-nearfar-truncated-tokens": "0"}
_embed = msgspec.json.Decoder(EmbedRequest)
_embeddings = msgspec.json.Decoder(EmbeddingsRequest)
_rerank = msgspec.json.Decoder(RerankRequest)


@post("/api/embed", status_code=200, opt=_EMBED)
async def embed(request: Request[Any, Any, Any]) -> Response[bytes]:
    began = time.perf_counter_ns()
    body = await read_request(request, _embed)
    model = require_model(body.model)
    texts = [body.input] if isinstance(body.input, str) and body.input else body.input or []
    if not texts and is_zero(body.keep_alive):
        caller_of(request.scope).require_scope("admin")
        await cancel_on_disconnect(request, fleet_of(request).unload(model))
        return json_response(EmbedReply(model=model, embeddings=[]), headers=_NOTHING_TRUNCATED)
    dim, load_ns = await _load(request, model, "embed")
    if not texts:  # a request to load the model in advance
        return json_response(EmbedReply(model=model, embeddings=[]), headers=_NOTHING_TRUNCATED)
    job = EmbedJob(
        model=model,
        inputs=tuple(texts),
        # As in Ollama, dimensions that aren't fewer than the model's have no effect.
        dimensions=body.dimensions if body.dimensions and 0 < body.dimensions < dim else None,
        max_tokens=body.max_tokens,
        on_overflow=overflow_of(body.truncate),
    )
    done = await cancel_on_disconnect(request, service_of(request).embed(job, caller_of(request.scope)))

    def reply(rows: list[msgspec.Raw]) -> EmbedReply:
        return EmbedReply(
            model=model,
            embeddings=rows,
            total_duration=time.perf_counter_ns() - began,
            load_duration=load_ns,
            prompt_eval_count=done.usage.tokens,
        )

    encoded = await encode_json(done.vectors.size, lambda: reply(render_rows(done)))
    return encoded_response(encoded, headers=record_usage(request, done.model, len(texts), done.usage, done.timings))


@post("/api/embeddings", status_code=200, opt=_EMBEDDINGS)
async def embeddings(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Embed one text. The vector has unit length; Ollama's own has not, which makes no difference to cosines."""
    body = await read_request(request, _embeddings)
    model = require_model(body.model)
    if not body.prompt:
        await _load(request, model, "embed")
        return json_response({"embedding": []}, headers=_NOTHING_TRUNCATED)
    job = EmbedJob(model=model, inputs=(body.prompt,), max_tokens=body.max_tokens)
    done = await cancel_on_disconnect(request, service_of(request).embed(job, caller_of(request.scope)))
    encoded = await encode_json(done.vectors.size, lambda: EmbeddingsReply(render_rows(done)[0]))
    return encoded_response(encoded, headers=record_usage(request, done.model, 1, done.usage, done.timings))


@post("/api/rerank", status_code=200, opt=_RERANK)
async def rerank(request: Request[Any, Any, Any]) -> Response[bytes]:
    began = time.perf_counter_ns()
    body = await read_request(request, _rerank)
    model = require_model(body.model)
    _, load_ns = await _load(request, model, "rank")
    job = RankJob(
        model=model,
        query=body.query,
        documents=tuple(body.documents),
        top_n=body.top_n or None,
        instruction=body.instruction or None,
    )
    done = await cancel_on_disconnect(request, service_of(request).rank(job, caller_of(request.scope)))
    results = [RerankResult(result.index, result.score) for result in done.results]
    if body.return_documents:
        for result in results:
            result.document = Document(body.documents[result.index])
    reply = RerankReply(
        model=model,
        results=results,
        total_duration=time.perf_counter_ns() - began,
        load_duration=load_ns,
        prompt_eval_count=done.usage.tokens,
    )
    headers = record_usage(request, done.model, len(body.documents), done.usage, done.timings)
    return json_response(reply, headers=headers)


async def _load(request: AnyRequest, model: str, task: Task) -> tuple[int, int]:
    """Wait until the model is loaded. Returns the dimensions of its vectors, and the nanoseconds waited."""
    began = time.perf_counter_ns()
    info = await cancel_on_disconnect(request, service_of(request).prepare(model, task, caller_of(request.scope)))
    return info.dim, time.perf_counter_ns() - began
