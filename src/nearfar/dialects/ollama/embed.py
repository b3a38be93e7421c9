"""Ollama's embeddings, and a rerank route in their style."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from litestar import Request, Response, post

from nearfar.core.jobs import EmbedJob, RankJob
from nearfar.core.types import Task
from nearfar.dialects.kit.endpoint import encoded_response, json_response, record_usage
from nearfar.dialects.kit.rendering import encode_json, render_rows
from nearfar.dialects.kit.request import AnyRequest, caller_of, cancel_on_disconnect, fleet_of, read_request, service_of
from nearfar.dialects.ollama.bodies import (
    Document,
    EmbeddingsReply,
    EmbeddingsRequest,
    EmbedReply,
    EmbedRequest,
    RerankReply,
    RerankRequest,
    RerankResult,
    is_zero,
    require_model,
)
from nearfar.dialects.ollama.route_docs import EMBED, EMBEDDINGS, RERANK

_NOTHING_TRUNCATED = {"x-nearfar-truncated-tokens": "0"}
_embed = msgspec.json.Decoder(EmbedRequest)
_embeddings = msgspec.json.Decoder(EmbeddingsRequest)
_rerank = msgspec.json.Decoder(RerankRequest)


@post("/api/embed", status_code=200, opt=EMBED)
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
        on_overflow=None if body.truncate is None else ("truncate" if body.truncate else "error"),
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


@post("/api/embeddings", status_code=200, opt=EMBEDDINGS)
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


@post("/api/rerank", status_code=200, opt=RERANK)
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
