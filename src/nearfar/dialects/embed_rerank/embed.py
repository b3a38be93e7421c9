"""embed-rerank's embeddings, with true counts of tokens and time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, post

from nearfar.core.errors import EmptyInput
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.settings import OnOverflow
from nearfar.core.types import ModelInfo
from nearfar.dialects.embed_rerank.bodies import EmbeddedText, EmbedReply, EmbedRequest, EmbedUsage, ProcessingInfo
from nearfar.dialects.embed_rerank.info import process_time
from nearfar.dialects.embed_rerank.route_docs import EMBED
from nearfar.dialects.kit.endpoint import encoded_response, record_usage
from nearfar.dialects.kit.rendering import encode_json, render_rows
from nearfar.dialects.kit.request import caller_of, cancel_on_disconnect, read_request, service_of

_QUOTED = 100  # characters of each text in the answer
_embed = msgspec.json.Decoder(EmbedRequest)


@post("/api/v1/embed", status_code=200, opt=EMBED)
async def embed(request: Request[Any, Any, Any]) -> Response[bytes]:
    began = time.perf_counter()
    body = await read_request(request, _embed)
    job = _to_job(body)
    service, caller = service_of(request), caller_of(request.scope)
    info = await cancel_on_disconnect(request, service.prepare(job.model, "embed", caller))
    done = await cancel_on_disconnect(request, service.embed(job, caller))
    seconds = time.perf_counter() - began
    encoded = await encode_json(done.vectors.size, lambda: _reply(body, info, done, render_rows(done), seconds))
    headers = record_usage(request, done.model, len(job.inputs), done.usage, done.timings)
    return encoded_response(encoded, headers=headers | process_time(request))


def _to_job(body: EmbedRequest) -> EmbedJob:
    if not body.texts:
        raise EmptyInput("texts cannot be empty", "texts")
    blank = next((index for index, text in enumerate(body.texts) if not text.strip()), None)
    if blank is not None:
        raise EmptyInput(f"Text at index {blank} cannot be empty or whitespace only", "texts")
    return EmbedJob(
        model=body.model or None,
        inputs=tuple(body.texts),
        max_tokens=body.max_tokens_override,
        on_overflow=_on_overflow(body),
        normalize=body.normalize,
    )


def _on_overflow(body: EmbedRequest) -> OnOverflow | None:
    """Return what to do with an over-long text; None leaves it to the model's setting."""
    if body.auto_truncate is False or body.truncation_strategy == "error":
        return "error"
    return "truncate" if body.auto_truncate or body.truncation_strategy else None


def _reply(body: EmbedRequest, info: ModelInfo, done: Embedded, rows: list[msgspec.Raw], seconds: float) -> EmbedReply:
    infos = [_processing_info(*counts) if body.return_processing_info else None for counts in done.usage.each]
    return EmbedReply(
        embeddings=[
            EmbeddedText(embedding=row, index=index, text=text[:_QUOTED], processing_info=about)
            for index, (row, text, about) in enumerate(zip(rows, body.texts, infos, strict=True))
        ],
        vectors=rows,
        dim=done.vectors.shape[1],
        backend=info.engine,
        device=info.device,
        processing_time=seconds,
        model_info=done.model,
        usage=EmbedUsage(
            total_texts=len(rows),
            total_tokens=done.usage.tokens,
            processing_time_ms=seconds * 1000,
            backend=info.engine,
            batch_size=len(rows),
            normalize=info.normalized if body.normalize is None else body.normalize,
        ),
        timestamp=datetime.now(UTC).isoformat(),
        num_texts=len(rows),
    )


def _processing_info(tokens: int, truncated: int) -> ProcessingInfo:
    return ProcessingInfo(
        original_tokens=tokens + truncated,
        processed_tokens=tokens,
        truncated=truncated > 0,
        strategy="truncate",
        warnings=[f"the last {truncated} tokens were cut off"] if truncated else [],
        token_reduction=truncated,
        reduction_percentage=round(100 * truncated / (tokens + truncated), 2),
    )
