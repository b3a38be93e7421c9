"""Ollama's embeddings, and the rerank that it lacks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post

from nearfar.core.jobs import EmbedJob, RankJob
from nearfar.dialects.kit.base import encoded_response, fleet_of, json_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.rendering import render_reply
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request
from nearfar.dialects.kit.route_docs import NOT_EMPTY, requires, route_docs
from nearfar.dialects.ollama.bodies import (
    Document,
    EmbeddingsReply,
    EmbeddingsRequest,
    EmbedReply,
    EmbedRequest,
    Options,
    RerankReply,
    RerankRequest,
    Result,
    is_nothing,
    named,
)

if TYPE_CHECKING:
    from nearfar.core.jobs import Embedded
    from nearfar.core.types import Task
    from nearfar.dialects.kit.base import AnyRequest

_NOTHING_CUT = {"x-nearfar-truncated-tokens": "0"}
_embed = msgspec.json.Decoder(EmbedRequest)
_embeddings = msgspec.json.Decoder(EmbeddingsRequest)
_rerank = msgspec.json.Decoder(RerankRequest)

_EMBED = route_docs(
    "Vectors of texts, as Ollama says it",
    body=requires(EmbedRequest, model=NOT_EMPTY),
    reply=EmbedReply,
    example={"model": "sentence-transformers/all-MiniLM-L6-v2", "input": ["a cat on the sofa"]},
    reply_example={
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "embeddings": [[0.1431, -0.0766, -0.0241]],
        "total_duration": 14143917,
        "load_duration": 1019500,
        "prompt_eval_count": 7,
    },
)
_EMBEDDINGS = route_docs(
    "The vector of one text, as older clients of Ollama ask for it",
    body=requires(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingsReply,
    example={"model": "sentence-transformers/all-MiniLM-L6-v2", "prompt": "a cat on the sofa"},
    reply_example={"embedding": [0.1431, -0.0766, -0.0241]},
)
_RERANK = route_docs(
    "Documents sorted by how well they answer a query, beside Ollama's routes",
    body=requires(RerankRequest, model=NOT_EMPTY),
    reply=RerankReply,
    example={
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "query": "Where is the cat?",
        "documents": ["Bananas are yellow.", "The cat sat on the mat."],
        "top_n": 1,
    },
    reply_example={
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "results": [{"index": 1, "relevance_score": 0.83}],
        "total_duration": 14143917,
        "load_duration": 1019500,
        "prompt_eval_count": 24,
    },
)


@post("/api/embed", status_code=200, opt=_EMBED)
async def embed(request: Request[Any, Any, Any]) -> Response[bytes]:
    began = time.perf_counter_ns()
    body = await read_request(request, _embed)
    model = named(body.model)
    texts = ([body.input] if body.input else []) if isinstance(body.input, str) else body.input or []
    if not texts and is_nothing(body.keep_alive):
        caller_of(request.scope).require_scope("admin")
        await cancel_on_disconnect(request, fleet_of(request).unload(model))
        return json_response(EmbedReply(model=model, embeddings=[]), headers=_NOTHING_CUT)
    dim, load_ns = await _prepare(request, model, "embed")
    if not texts:  # this is how a model is loaded before it is needed
        return json_response(EmbedReply(model=model, embeddings=[]), headers=_NOTHING_CUT)
    job = EmbedJob(
        model=model,
        inputs=tuple(texts),
        # As in Ollama, a length that the model hasn't got leaves vectors as long as they are.
        dimensions=body.dimensions if body.dimensions and 0 < body.dimensions < dim else None,
        max_tokens=(body.options or Options()).max_tokens,
        on_overflow=None if body.truncate is None else ("truncate" if body.truncate else "error"),
    )

    def reply(done: Embedded, rendered: list[msgspec.Raw]) -> EmbedReply:
        return EmbedReply(
            model=model,
            embeddings=rendered,
            total_duration=time.perf_counter_ns() - began,
            load_duration=load_ns,
            prompt_eval_count=done.usage.tokens,
        )

    done = await cancel_on_disconnect(request, service_of(request).embed(job, caller_of(request.scope)))
    encoded = await render_reply(done.vectors, "float", lambda rendered: reply(done, rendered))
    return encoded_response(encoded, headers=record_usage(request, done.model, len(texts), done.usage, done.timings))


@post("/api/embeddings", status_code=200, opt=_EMBEDDINGS)
async def embeddings(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give one vector. Ollama doesn't make it a unit vector here; this server does, and no cosine tells."""
    body = await read_request(request, _embeddings)
    model = named(body.model)
    if not body.prompt:
        await _prepare(request, model, "embed")
        return json_response({"embedding": []}, headers=_NOTHING_CUT)
    job = EmbedJob(model=model, inputs=(body.prompt,), max_tokens=(body.options or Options()).max_tokens)
    done = await cancel_on_disconnect(request, service_of(request).embed(job, caller_of(request.scope)))
    encoded = await render_reply(done.vectors, "float", lambda rendered: EmbeddingsReply(rendered[0]))
    return encoded_response(encoded, headers=record_usage(request, done.model, 1, done.usage, done.timings))


@post("/api/rerank", status_code=200, opt=_RERANK)
async def rerank(request: Request[Any, Any, Any]) -> Response[bytes]:
    began = time.perf_counter_ns()
    body = await read_request(request, _rerank)
    model = named(body.model)
    _, load_ns = await _prepare(request, model, "rank")
    job = RankJob(
        model=model,
        query=body.query,
        documents=tuple(body.documents),
        top_n=body.top_n or None,
        instruction=body.instruction or None,
    )
    done = await cancel_on_disconnect(request, service_of(request).rank(job, caller_of(request.scope)))
    told = (lambda index: Document(body.documents[index])) if body.return_documents else (lambda _: msgspec.UNSET)
    reply = RerankReply(
        model=model,
        results=[Result(found.index, found.score, told(found.index)) for found in done.results],
        total_duration=time.perf_counter_ns() - began,
        load_duration=load_ns,
        prompt_eval_count=done.usage.tokens,
    )
    return json_response(
        reply, headers=record_usage(request, done.model, len(body.documents), done.usage, done.timings)
    )


async def _prepare(request: AnyRequest, model: str, task: Task) -> tuple[int, int]:
    """Wait until the model is there; give the length of its vectors, and the nanoseconds that took."""
    began = time.perf_counter_ns()
    info = await cancel_on_disconnect(request, service_of(request).prepare(model, task, caller_of(request.scope)))
    return info.dim, time.perf_counter_ns() - began
