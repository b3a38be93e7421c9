"""Ollama's routes for embeddings and models, and a rerank route in their style: https://docs.ollama.com/api."""

from __future__ import annotations

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.ollama.embed import EMBED, EMBEDDINGS, RERANK
from nearfar.dialects.ollama.errors import ERRORS, ErrorReply
from nearfar.dialects.ollama.models import SHOW, ps, tags, version
from nearfar.dialects.ollama.unload import CHAT, GENERATE, PULL

# The last part of a model's name on the hub → its names in Ollama's library, where those differ. A name without a tag
# means what ``latest`` means there. Source: https://ollama.com/search?c=embedding.
_NAMES: dict[str, tuple[str, ...]] = {
    "all-MiniLM-L6-v2": ("all-minilm", "all-minilm:22m", "all-minilm:l6-v2"),
    "all-MiniLM-L12-v2": ("all-minilm:33m", "all-minilm:l12-v2"),
    "bge-large-en-v1.5": ("bge-large", "bge-large:335m"),
    "bge-m3": ("bge-m3:567m",),
    "embeddinggemma-300m": ("embeddinggemma", "embeddinggemma:300m"),
    "granite-embedding-30m-english": ("granite-embedding", "granite-embedding:30m"),
    "granite-embedding-278m-multilingual": ("granite-embedding:278m",),
    "mxbai-embed-large-v1": ("mxbai-embed-large", "mxbai-embed-large:v1", "mxbai-embed-large:335m"),
    "nomic-embed-text-v1.5": ("nomic-embed-text", "nomic-embed-text:v1.5"),
    "paraphrase-multilingual-mpnet-base-v2": ("paraphrase-multilingual", "paraphrase-multilingual:278m"),
    "Qwen3-Embedding-8B": ("qwen3-embedding", "qwen3-embedding:8b"),
    "Qwen3-Embedding-4B": ("qwen3-embedding:4b",),
    "Qwen3-Embedding-0.6B": ("qwen3-embedding:0.6b",),
    "snowflake-arctic-embed-l": ("snowflake-arctic-embed", "snowflake-arctic-embed:335m"),
    "snowflake-arctic-embed-m-long": ("snowflake-arctic-embed:137m",),
    "snowflake-arctic-embed-m": ("snowflake-arctic-embed:110m",),
    "snowflake-arctic-embed-s": ("snowflake-arctic-embed:33m",),
    "snowflake-arctic-embed-xs": ("snowflake-arctic-embed:22m",),
    "snowflake-arctic-embed-l-v2.0": ("snowflake-arctic-embed2", "snowflake-arctic-embed2:568m"),
}

dialect = Dialect(
    name="ollama",
    routes=[
        EMBED.route("/api/embed"),
        EMBEDDINGS.route("/api/embeddings"),
        RERANK.route("/api/rerank"),
        GENERATE.route("/api/generate"),
        CHAT.route("/api/chat"),
        SHOW.route("/api/show"),
        PULL.route("/api/pull"),
    ],
    handlers=[tags, ps, version],
    errors=ERRORS,
    render_error=lambda wire: ErrorReply(wire.message),
    error_reply=ErrorReply,
    about="Ollama's embeddings and models, and a rerank route in their style: https://docs.ollama.com/api",
    prefixes=("/api",),
    open_models={name: (model,) for model, names in _NAMES.items() for name in names},
)
