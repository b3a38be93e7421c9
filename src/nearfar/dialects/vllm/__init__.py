"""vLLM's pooling models and Infinity's forms of them: https://docs.vllm.ai/en/latest/models/pooling_models."""

from __future__ import annotations

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.endpoint import SharedRoute
from nearfar.dialects.vllm.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.vllm.rerank import rerank
from nearfar.dialects.vllm.route_docs import RERANK, TOKENIZE
from nearfar.dialects.vllm.routes import classify, detokenize, pooling, score, tokenize

dialect = Dialect(
    name="vllm",
    handlers=[score, classify, pooling, detokenize],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="vLLM's pooling models: https://docs.vllm.ai/en/latest/models/pooling_models",
    prefixes=("/score", "/v1/score", "/classify", "/pooling", "/tokenize", "/detokenize", "/rerank"),
    shared=[
        # Last on the path: the other dialects' fields are ones that no client of vLLM or Infinity sends.
        SharedRoute(path="/rerank", fields=("documents",), precedence=3, handler=rerank, docs=RERANK),
        SharedRoute(path="/tokenize", fields=("prompt",), handler=tokenize, docs=TOKENIZE),
    ],
)
