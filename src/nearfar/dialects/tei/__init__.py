"""Text-embeddings-inference's protocol: https://huggingface.github.io/text-embeddings-inference."""

from __future__ import annotations

from nearfar.dialects.kit.base import Dialect, SharedRoute
from nearfar.dialects.tei.described import RERANK, TOKENIZE
from nearfar.dialects.tei.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.tei.health import health, welcome
from nearfar.dialects.tei.routes import (
    decode,
    embed,
    embed_all,
    embed_sparse,
    invoke,
    predict,
    rerank,
    similarity,
    tokenize,
    vertex,
)

dialect = Dialect(
    name="tei",
    handlers=[embed, embed_all, embed_sparse, similarity, predict, decode, invoke, vertex, health, welcome],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="Text-embeddings-inference's: https://huggingface.github.io/text-embeddings-inference",
    prefixes=("/similarity", "/embed", "/predict", "/decode", "/invocations", "/vertex", "/ping"),
    shared=[
        SharedRoute(path="/rerank", fields=("texts",), handler=rerank, docs=RERANK),
        SharedRoute(path="/tokenize", fields=("inputs",), handler=tokenize, docs=TOKENIZE),
    ],
)
