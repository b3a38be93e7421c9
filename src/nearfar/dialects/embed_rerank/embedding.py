"""embed-rerank's embeddings: every number of the answer is one that was measured."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post

from nearfar.core.errors import EmptyInput
from nearfar.core.jobs import EmbedJob
from nearfar.dialects.embed_rerank.bodies import EmbeddedText, EmbedReply, EmbedRequest, EmbedUsage, ProcessingInfo
from nearfar.dialects.embed_rerank.described import EMBED
from nearfar.dialects.kit.base import encoded_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.rendering import render_reply
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request

if TYPE_CHECKING:
    from nearfar.core.jobs import Embedded
    from nearfar.core.settings import OnOverflow
    from nearfar.core.types import ModelInfo

_SHOWN = 100  # characters of a text that are told back
_embed = msgspec.json.Decoder(EmbedRequest)


@post("/api/v1/embed", status_code=200, opt=EMBED)
async def embed(request: Request[Any, Any, Any]) -> Response[bytes]:
    began = time.perf_counter()
    body = await read_request(request, _embed)
    job = _to_job(body)
    info = await cancel_on_disconnect(
        request, service_of(request).prepare(job.model, "embed", caller_of(request.scope))
    )
    done = await cancel_on_disconnect(request, service_of(request).embed(job, caller_of(request.scope)))
    took_s = time.perf_counter() - began
    encoded = await render_reply(done.vectors, "float", lambda rows: _reply(body, info, done, rows, took_s))
    headers = record_usage(request, done.model, len(job.inputs), done.usage, done.timings)
    return encoded_response(encoded, headers={**headers, "x-process-time": f"{took_s:.6f}"})


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
    """Say what becomes of a text that is too long; None leaves that to the model's setting."""
    if body.auto_truncate is False or body.truncation_strategy == "error":
        return "error"
    return "truncate" if body.auto_truncate or body.truncation_strategy else None


def _reply(body: EmbedRequest, info: ModelInfo, done: Embedded, rows: list[msgspec.Raw], took_s: float) -> EmbedReply:
    infos = [_processing(*counts) if body.return_processing_info else None for counts in done.usage.each]
    return EmbedReply(
        embeddings=[
            EmbeddedText(embedding=row, index=index, text=text[:_SHOWN], processing_info=about)
            for index, (row, text, about) in enumerate(zip(rows, body.texts, infos, strict=True))
        ],
        vectors=rows,
        dim=done.vectors.shape[1],
        backend=info.engine,
        device=info.device,
        processing_time=took_s,
        model_info=done.model,
        usage=EmbedUsage(
            total_texts=len(rows),
            total_tokens=done.usage.tokens,
            processing_time_ms=took_s * 1000,
            backend=info.engine,
            batch_size=len(rows),
            normalize=info.normalized if body.normalize is None else body.normalize,
        ),
        timestamp=datetime.now(UTC).isoformat(),
        num_texts=len(rows),
    )


def _processing(read: int, cut: int) -> ProcessingInfo:
    return ProcessingInfo(
        original_tokens=read + cut,
        processed_tokens=read,
        truncated=cut > 0,
        strategy="truncate",
        warnings=[f"the last {cut} tokens were cut off"] if cut else [],
        token_reduction=cut,
        reduction_percentage=round(100 * cut / (read + cut), 2),
    )
