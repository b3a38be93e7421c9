"""Cohere's embed, rerank, tokenize and key check: https://docs.cohere.com/reference/about."""

from __future__ import annotations

from nearfar.core.types import Task
from nearfar.dialects.cohere.embed import EMBED_V1, EMBED_V2, EMBEDDERS
from nearfar.dialects.cohere.envelope import usual_headers
from nearfar.dialects.cohere.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.cohere.rerank import RERANK_V1, RERANK_V2
from nearfar.dialects.cohere.tokens import CHECK_API_KEY, DETOKENIZE, TOKENIZE
from nearfar.dialects.kit.base import Dialect

_RERANKERS = (
    "rerank-v5.0-pro",
    "rerank-v4.0-pro",
    "rerank-v4.0-fast",
    "rerank-v3.5",
    "rerank-english-v3.0",
    "rerank-multilingual-v3.0",
    "rerank-english-v2.0",
    "rerank-multilingual-v2.0",
)
_VENDOR_MODELS: dict[str, Task] = {**dict.fromkeys(_RERANKERS, "rank"), **dict.fromkeys(EMBEDDERS, "embed")}

dialect = Dialect(
    name="cohere",
    # With a base URL that ends in /v1, Cohere's clients send requests to /v1/v1 and /v1/v2.
    routes=[
        RERANK_V1.route("/v1/rerank", "/v1/v1/rerank"),
        RERANK_V2.route("/v2/rerank", "/v1/v2/rerank"),
        EMBED_V1.route("/v1/embed", "/v1/v1/embed"),
        EMBED_V2.route("/v2/embed", "/v1/v2/embed"),
        TOKENIZE.route("/v1/tokenize", "/v1/v1/tokenize"),
        DETOKENIZE.route("/v1/detokenize", "/v1/v1/detokenize"),
        CHECK_API_KEY,
    ],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="Cohere's embed, rerank and tokenize: https://docs.cohere.com/reference/about",
    error_headers=usual_headers,
    prefixes=(
        "/v2",
        *(f"/v1/{route}" for route in ("rerank", "embed", "tokenize", "detokenize", "check-api-key", "v1", "v2")),
    ),
    vendor_models=_VENDOR_MODELS,
)
