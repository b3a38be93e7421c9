"""Voyage's embeddings and rerank, in its words: https://docs.voyageai.com/reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.dialects.kit.base import Dialect, SharedRoute
from nearfar.dialects.voyage import embeddings, rerank
from nearfar.dialects.voyage.errors import ERRORS, VoyageErrorReply, render_error

if TYPE_CHECKING:
    from nearfar.core.types import Task

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

dialect = Dialect(
    name="voyage",
    handlers=[embeddings.create, rerank.create],
    errors=ERRORS,
    render_error=render_error,
    error_reply=VoyageErrorReply,
    about="Voyage's embeddings and rerank: https://docs.voyageai.com/reference",
    prefixes=("/voyage",),
    vendor_models=_VENDOR_MODELS,
    shared=[
        *(
            SharedRoute(
                path=path,
                fields=("input_type", "truncation", "output_dtype", "output_dimension"),
                precedence=2,
                handler=embeddings.answer_shared,
                docs=embeddings.DESCRIBED,
            )
            for path in ("/v1/embeddings", "/embeddings")
        ),
        *(
            SharedRoute(
                path=path,
                fields=("top_k", "truncation"),
                precedence=2,
                handler=rerank.answer_shared,
                docs=rerank.DESCRIBED,
            )
            for path in ("/v1/rerank", "/rerank")
        ),
    ],
)
