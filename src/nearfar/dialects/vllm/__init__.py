"""vLLM's pooling models and Infinity's forms of them: https://docs.vllm.ai/en/latest/models/pooling_models."""

from __future__ import annotations

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.vllm.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.vllm.llama_cpp import EMBEDDING
from nearfar.dialects.vllm.pooling import POOLING
from nearfar.dialects.vllm.rerank import INVOKE_RERANK, RERANKING
from nearfar.dialects.vllm.routes import CLASSIFY, SCORE
from nearfar.dialects.vllm.tokens import DETOKENIZE, TOKENIZE

dialect = Dialect(
    name="vllm",
    routes=[
        SCORE.route("/v1/score", "/score"),
        CLASSIFY.route("/classify"),
        # SageMaker's path. A body with ``queries`` and ``documents`` has pairs.
        SCORE.route("/invocations", fields=("text_1", "data_1", "queries")),
        INVOKE_RERANK,
        CLASSIFY.route("/invocations", fields=("input", "messages"), tasks=("classify", "rank"), precedence=2),
        POOLING,
        DETOKENIZE.route("/detokenize"),
        # Both take the bodies without other dialects' fields, which no client of vLLM or Infinity sends.
        RERANKING,
        TOKENIZE.route("/tokenize"),
        EMBEDDING.route("/embedding"),
    ],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="vLLM's pooling models: https://docs.vllm.ai/en/latest/models/pooling_models",
    prefixes=(
        "/score",
        "/v1/score",
        "/classify",
        "/pooling",
        "/tokenize",
        "/detokenize",
        "/rerank",
        "/reranking",
        "/v1/reranking",
        "/embedding",
    ),
)
