"""Ollama's embeddings and models, in its words, and a rerank beside them: https://docs.ollama.com/api."""

from __future__ import annotations

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.ollama.embed import embed, embeddings, rerank
from nearfar.dialects.ollama.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.ollama.listing import ps, show, tags, version
from nearfar.dialects.ollama.orders import chat, generate, pull

dialect = Dialect(
    name="ollama",
    handlers=[embed, embeddings, rerank, tags, ps, show, version, generate, chat, pull],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="Ollama's embeddings and models, and a rerank beside them: https://docs.ollama.com/api",
    prefixes=("/api",),
    # Ollama's name of the built-in model. Its other names are of models that could be served here in truth, so each is
    # known only as an alias of the model that it means.
    vendor_models={"all-minilm": "embed"},
)
