"""embed-rerank's routes: https://github.com/joonsoome/embed-rerank.

Its limits (100 texts, 1,000 passages of 4,096 characters, 100 results, batches of 10) don't apply.
"""

from __future__ import annotations

from nearfar.dialects.embed_rerank.embed import EMBED
from nearfar.dialects.embed_rerank.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.embed_rerank.info import embed_info, health, rerank_info
from nearfar.dialects.embed_rerank.openai_rerank import OPENAI_RERANK
from nearfar.dialects.embed_rerank.rerank import RERANK, RERANK_BATCH
from nearfar.dialects.kit.base import Dialect

dialect = Dialect(
    name="embed_rerank",
    routes=[
        EMBED.route("/api/v1/embed"),
        RERANK.route("/api/v1/rerank"),
        RERANK_BATCH.route("/api/v1/rerank/batch"),
        OPENAI_RERANK.route("/v1/openai/rerank", "/v1/rerank_openai"),
    ],
    handlers=[embed_info, rerank_info, health],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    prefixes=("/api/v1", "/v1/openai", "/v1/rerank_openai", "/v1/health"),
    about="embed-rerank: https://github.com/joonsoome/embed-rerank",
)
