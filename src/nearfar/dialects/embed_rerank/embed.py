"""embed-rerank's embeddings, with true counts of tokens and time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Struct

from nearfar.core.errors import EmptyInput
from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.settings import OnOverflow
from nearfar.dialects.embed_rerank.info import HEADERS, process_time
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import render_rows
from nearfar.dialects.kit.route_docs import AtLeastOne, NotBlank, Numbers, RouteDocs, json_schema
from nearfar.serving.service import Service


class EmbedRequest(Struct, kw_only=True):
    """The body of POST /api/v1/embed.

    Every ``truncation_strategy`` but ``error`` truncates the end of a text; finding its most important sentences would
    take a model. ``batch_size`` has no effect, since batches combine the texts of all callers. Without ``normalize``
    the model decides.
    """

    texts: Annotated[list[NotBlank], json_schema(minItems=1)]
    batch_size: int | None = None
    normalize: bool | None = None
    auto_truncate: bool | None = None
    truncation_strategy: Literal["smart_truncate", "truncate", "extract", "error"] | None = None
    max_tokens_override: AtLeastOne | None = None
    return_processing_info: bool | None = None
    model: str | None = None


class ProcessingInfo(Struct, kw_only=True):
    """A text's tokens before and after truncation, special tokens included."""

    original_tokens: int
    processed_tokens: int
    truncated: bool
    strategy: str
    warnings: list[str]
    token_reduction: int
    reduction_percentage: float


class EmbeddedText(Struct, kw_only=True):
    """A text's vector, and the beginning of the text."""

    embedding: Numbers
    index: int
    text: str
    processing_info: ProcessingInfo | None


class EmbedUsage(Struct, kw_only=True):
    """The texts, tokens and time of an answer. ``batch_size`` is the number of texts queued at once, which is all."""

    total_texts: int
    total_tokens: int
    processing_time_ms: float
    backend: str
    batch_size: int
    normalize: bool


class EmbedReply(Struct, kw_only=True):
    """The body of an answer, in the request's order. ``vectors`` repeats the vectors of ``embeddings``."""

    embeddings: list[EmbeddedText]
    vectors: list[Numbers]
    dim: int
    backend: str
    device: str
    processing_time: float
    model_info: str
    usage: EmbedUsage
    timestamp: str
    num_texts: int


_EMBED = RouteDocs(
    summary="Embed texts, as in embed-rerank",
    answers=("vectors",),
    body=EmbedRequest,
    reply=EmbedReply,
    example={"texts": ["a cat on the sofa"]},
    examples={
        "everything": {
            "texts": ["a cat on the sofa", "stock prices fell"],
            "batch_size": 32,
            "normalize": True,
            "auto_truncate": True,
            "truncation_strategy": "smart_truncate",
            "max_tokens_override": 128,
            "return_processing_info": True,
        }
    },
    headers=HEADERS,
)

_QUOTED = 100  # characters of each text in the answer


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


def _reply(body: EmbedRequest, _: EmbedJob, done: Embedded) -> EmbedReply:
    info, rows = done.info, render_rows(done)
    seconds = done.timings.load_s + done.timings.total_s
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
        model_info=info.name,
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


EMBED = Endpoint(_EMBED, _to_job, Service.embed, _reply, headers=process_time)
