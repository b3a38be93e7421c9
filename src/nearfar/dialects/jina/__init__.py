"""Jina's embeddings and rerank of texts: https://api.jina.ai/docs."""

from __future__ import annotations

from msgspec import UNSET

from nearfar.core.types import Task
from nearfar.dialects.jina.embeddings import EMBEDDINGS, OWN_FIELDS
from nearfar.dialects.jina.errors import ERRORS, JinaErrorReply
from nearfar.dialects.jina.rerank import RERANK
from nearfar.dialects.kit.base import Dialect

_EMBEDDERS = (
    "jina-embeddings-v5-text-small",
    "jina-embeddings-v5-text-nano",
    "jina-embeddings-v5-omni-small",
    "jina-embeddings-v5-omni-nano",
    "jina-embeddings-v4",
    "jina-embeddings-v3",
    "jina-embeddings-v2-base-en",
    "jina-embeddings-v2-base-de",
    "jina-embeddings-v2-base-es",
    "jina-embeddings-v2-base-zh",
    "jina-embeddings-v2-base-code",
    "jina-code-embeddings-1.5b",
    "jina-code-embeddings-0.5b",
    "jina-clip-v2",
    "jina-clip-v1",
)
_RERANKERS = (
    "jina-reranker-v3.5",
    "jina-reranker-v3",
    "jina-reranker-m0",
    "jina-reranker-v2-base-multilingual",
    "jina-reranker-v1-base-en",
    "jina-reranker-v1-turbo-en",
    "jina-reranker-v1-tiny-en",
    "jina-colbert-v2",
    "jina-colbert-v1-en",
)
_VENDOR_MODELS: dict[str, Task] = {**dict.fromkeys(_EMBEDDERS, "embed"), **dict.fromkeys(_RERANKERS, "rank")}
_CLOSED = {"jina-reranker-v1-base-en"}  # sold without public weights
_OPEN_MODELS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_VENDOR_MODELS.keys() - _CLOSED, ()),
    "jina-embeddings-v3": ("jina-embeddings-v3-hf",),  # the same weights for transformers' own code
}

dialect = Dialect(
    name="jina",
    routes=[
        EMBEDDINGS.route("/jina/v1/embeddings"),
        EMBEDDINGS.route("/v1/embeddings", "/embeddings", fields=OWN_FIELDS, precedence=1),
        RERANK.route("/jina/v1/rerank"),
    ],
    errors=ERRORS,
    render_error=lambda wire: JinaErrorReply(wire.message, wire.code or UNSET),
    error_reply=JinaErrorReply,
    about="Jina's embeddings and rerank: https://api.jina.ai/docs",
    prefixes=("/jina",),
    vendor_models=_VENDOR_MODELS,
    open_models=_OPEN_MODELS,
)
