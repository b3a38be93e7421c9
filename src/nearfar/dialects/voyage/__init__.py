"""Voyage's embeddings and rerank: https://docs.voyageai.com/reference."""

from __future__ import annotations

from nearfar.core.types import Task
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.voyage.contextualized import CONTEXTUALIZED
from nearfar.dialects.voyage.embeddings import EMBEDDINGS, SHARED_EMBEDDINGS
from nearfar.dialects.voyage.errors import ERRORS, VoyageErrorReply
from nearfar.dialects.voyage.ranking import RANKING, rank_at_catalog_path
from nearfar.dialects.voyage.rerank import RERANK, SHARED_RERANK

_EMBEDDERS = (
    "voyage-4-large",
    "voyage-4",
    "voyage-4-lite",
    "voyage-code-4",
    "voyage-3.5",
    "voyage-3.5-lite",
    "voyage-3-large",
    "voyage-3",
    "voyage-3-lite",
    "voyage-context-3",
    "voyage-code-3",
    "voyage-finance-2",
    "voyage-law-2",
    "voyage-multilingual-2",
    "voyage-code-2",
    "voyage-large-2-instruct",
    "voyage-large-2",
    "voyage-2",
    "voyage-01",
)
_RERANKERS = ("rerank-2.5", "rerank-2.5-lite", "rerank-2", "rerank-2-lite", "rerank-1", "rerank-lite-1")
_VENDOR_MODELS: dict[str, Task] = {**dict.fromkeys(_EMBEDDERS, "embed"), **dict.fromkeys(_RERANKERS, "rank")}
_OWN_FIELDS = ("input_type", "truncation", "output_dtype", "output_dimension")

dialect = Dialect(
    name="voyage",
    routes=[
        EMBEDDINGS.route("/voyage/v1/embeddings"),
        RERANK.route("/voyage/v1/rerank"),
        CONTEXTUALIZED.route("/voyage/v1/contextualizedembeddings", "/v1/contextualizedembeddings"),
        RANKING.route("/v1/ranking", "/ranking"),
        SHARED_EMBEDDINGS.route("/v1/embeddings", "/embeddings", fields=_OWN_FIELDS, precedence=2),
        SHARED_RERANK.route("/v1/rerank", "/rerank", fields=("top_k", "truncation"), precedence=2),
    ],
    handlers=[rank_at_catalog_path],
    errors=ERRORS,
    render_error=lambda wire: VoyageErrorReply(wire.message),
    error_reply=VoyageErrorReply,
    about="Voyage's embeddings and rerank: https://docs.voyageai.com/reference",
    prefixes=("/voyage", "/v1/contextualizedembeddings", "/v1/ranking", "/ranking", "/v1/retrieval"),
    vendor_models=_VENDOR_MODELS,
)
