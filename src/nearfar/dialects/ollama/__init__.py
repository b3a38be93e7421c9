"""Ollama's routes for embeddings and models, and a rerank route in their style: https://docs.ollama.com/api."""

from __future__ import annotations

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.ollama.embed import embed, embeddings, rerank
from nearfar.dialects.ollama.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.ollama.models import chat, generate, ps, pull, show, tags, version

# Names in Ollama's library, and the last parts of the same models' names on the hub where those differ. A name without
# a tag means what ``latest`` means there. Source: https://ollama.com/search?c=embedding.
_OPEN_MODELS = {
    "all-minilm": ("all-MiniLM-L6-v2",),
    "all-minilm:22m": ("all-MiniLM-L6-v2",),
    "all-minilm:l6-v2": ("all-MiniLM-L6-v2",),
    "all-minilm:33m": ("all-MiniLM-L12-v2",),
    "all-minilm:l12-v2": ("all-MiniLM-L12-v2",),
    "bge-large": ("bge-large-en-v1.5",),
    "bge-large:335m": ("bge-large-en-v1.5",),
    "bge-m3:567m": ("bge-m3",),
    "embeddinggemma": ("embeddinggemma-300m",),
    "embeddinggemma:300m": ("embeddinggemma-300m",),
    "granite-embedding": ("granite-embedding-30m-english",),
    "granite-embedding:30m": ("granite-embedding-30m-english",),
    "granite-embedding:278m": ("granite-embedding-278m-multilingual",),
    "mxbai-embed-large": ("mxbai-embed-large-v1",),
    "mxbai-embed-large:v1": ("mxbai-embed-large-v1",),
    "mxbai-embed-large:335m": ("mxbai-embed-large-v1",),
    "nomic-embed-text": ("nomic-embed-text-v1.5",),
    "nomic-embed-text:v1.5": ("nomic-embed-text-v1.5",),
    "paraphrase-multilingual": ("paraphrase-multilingual-mpnet-base-v2",),
    "paraphrase-multilingual:278m": ("paraphrase-multilingual-mpnet-base-v2",),
    "qwen3-embedding": ("Qwen3-Embedding-8B",),
    "qwen3-embedding:8b": ("Qwen3-Embedding-8B",),
    "qwen3-embedding:4b": ("Qwen3-Embedding-4B",),
    "qwen3-embedding:0.6b": ("Qwen3-Embedding-0.6B",),
    "snowflake-arctic-embed": ("snowflake-arctic-embed-l",),
    "snowflake-arctic-embed:335m": ("snowflake-arctic-embed-l",),
    "snowflake-arctic-embed:137m": ("snowflake-arctic-embed-m-long",),
    "snowflake-arctic-embed:110m": ("snowflake-arctic-embed-m",),
    "snowflake-arctic-embed:33m": ("snowflake-arctic-embed-s",),
    "snowflake-arctic-embed:22m": ("snowflake-arctic-embed-xs",),
    "snowflake-arctic-embed2": ("snowflake-arctic-embed-l-v2.0",),
    "snowflake-arctic-embed2:568m": ("snowflake-arctic-embed-l-v2.0",),
}

dialect = Dialect(
    name="ollama",
    handlers=[embed, embeddings, rerank, tags, ps, show, version, generate, chat, pull],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="Ollama's embeddings and models, and a rerank route in their style: https://docs.ollama.com/api",
    prefixes=("/api",),
    open_models=_OPEN_MODELS,
)
