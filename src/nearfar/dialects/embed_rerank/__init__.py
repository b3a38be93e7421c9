"""embed-rerank's routes: https://github.com/joonsoome/embed-rerank.

Its limits (100 texts, 1,000 passages of 4,096 characters, 100 results, batches of 10) don't apply.
"""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.embed_rerank.embed import EMBED
from nearfar.dialects.embed_rerank.info import embed_info, health, rerank_info
from nearfar.dialects.embed_rerank.openai_rerank import OPENAI_RERANK
from nearfar.dialects.embed_rerank.rerank import RERANK, RERANK_BATCH
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.error_responses import ErrorRow, WireError

_INTERNAL = 500


class ErrorReply(Struct):
    """The body of every error."""

    error: str
    detail: str
    status_code: int


def _render_error(wire: WireError) -> object:
    return ErrorReply("internal_server_error" if wire.status == _INTERNAL else "api_error", wire.message, wire.status)


dialect = Dialect(
    name="embed_rerank",
    routes=[
        EMBED.route("/api/v1/embed"),
        RERANK.route("/api/v1/rerank"),
        RERANK_BATCH.route("/api/v1/rerank/batch"),
        OPENAI_RERANK.route("/v1/openai/rerank", "/v1/rerank_openai"),
    ],
    handlers=[embed_info, rerank_info, health],
    errors={
        errors.InputError: ErrorRow(422),
        errors.ServingError: ErrorRow(message=lambda _: "the server failed on this request; its log says why"),
    },
    render_error=_render_error,
    error_reply=ErrorReply,
    prefixes=("/api/v1", "/v1/openai", "/v1/rerank_openai", "/v1/health"),
    about="embed-rerank: https://github.com/joonsoome/embed-rerank",
)
