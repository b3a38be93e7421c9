"""What is known of families of models by their names, for folders that don't say it themselves.

Converted checkpoints often lack sentence-transformers' files. Pooling in another way than the authors did gives vectors
that look right and find the wrong texts: bge-m3 pooled by the mean has a cosine of 0.776 to its own.
"""

from __future__ import annotations

import re

from msgspec import Struct

from nearfar.models.modules import Pooling

_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"


class Known(Struct, frozen=True, kw_only=True):
    """One family: the pattern its names have, its pooling, its prompts, and the page that says so.

    ``has_more`` tells of Dense layers after the pooling: a folder that doesn't name them can't be run.
    """

    pattern: str
    pooling: Pooling
    prompts: dict[str, str] = {}
    source: str
    has_more: bool = False


_E5 = {"query": "query: ", "document": "passage: "}
_BGE = {"query": "Represent this sentence for searching relevant passages: "}
KNOWN = (
    Known(pattern="bge-m3", pooling="cls", source="BAAI/bge-m3"),
    Known(pattern=r"bge-(small|base|large)-en", pooling="cls", prompts=_BGE, source="BAAI/bge-large-en-v1.5"),
    Known(pattern=r"\bbge-", pooling="cls", source="BAAI/bge-large-en-v1.5"),
    Known(pattern="e5-(small|base|large)(?!.*instruct)", pooling="mean", prompts=_E5, source="intfloat/e5-large-v2"),
    Known(
        pattern="multilingual-e5-large-instruct",
        pooling="mean",
        prompts={"query": f"Instruct: {_WEB_SEARCH}\nQuery: "},
        source="intfloat/multilingual-e5-large-instruct",
    ),
    Known(
        pattern="qwen3-embedding",
        pooling="lasttoken",
        prompts={"query": f"Instruct: {_WEB_SEARCH}\nQuery:"},
        source="Qwen/Qwen3-Embedding-0.6B",
    ),
    Known(pattern=r"gte-(small|base|large)-(zh|en-v1)", pooling="cls", source="Alibaba-NLP/gte-large-en-v1.5"),
    Known(pattern="gte-modernbert", pooling="cls", source="Alibaba-NLP/gte-modernbert-base"),
    Known(pattern=r"gte-(small|base|large)\b", pooling="mean", source="thenlper/gte-large"),
    Known(
        pattern="snowflake-arctic-embed-.*v2",
        pooling="cls",
        prompts={"query": "query: "},
        source="Snowflake/snowflake-arctic-embed-l-v2.0",
    ),
    Known(
        pattern="snowflake-arctic-embed",
        pooling="cls",
        prompts=_BGE,
        source="Snowflake/snowflake-arctic-embed-l",
    ),
    Known(pattern="mxbai-embed-(large|2d)", pooling="cls", prompts=_BGE, source="mixedbread-ai/mxbai-embed-large-v1"),
    Known(
        pattern="modernbert-embed",
        pooling="mean",
        prompts={"query": "search_query: ", "document": "search_document: "},
        source="nomic-ai/modernbert-embed-base",
    ),
    Known(pattern="all-(minilm|mpnet|distilroberta)|paraphrase-", pooling="mean", source="sentence-transformers"),
    Known(
        pattern="nomic-embed-text",
        pooling="mean",
        prompts={"query": "search_query: ", "document": "search_document: "},
        source="nomic-ai/nomic-embed-text-v1.5",
    ),
    Known(
        pattern="embeddinggemma",
        pooling="mean",
        prompts={"query": "task: search result | query: ", "document": "title: none | text: "},
        source="google/embeddinggemma-300m",
        has_more=True,
    ),
    Known(pattern="labse", pooling="cls", source="sentence-transformers/LaBSE", has_more=True),
    Known(pattern="jina-embeddings-v3", pooling="mean", source="jinaai/jina-embeddings-v3"),
    Known(pattern="gte-multilingual", pooling="cls", source="Alibaba-NLP/gte-multilingual-base"),
    Known(pattern="granite-embedding", pooling="cls", source="ibm-granite/granite-embedding-english-r2"),
)


def known_by(*names: str) -> Known | None:
    """Find the family that one of the names belongs to, the most telling name first."""
    return next((known for name in names for known in KNOWN if re.search(known.pattern, name.lower())), None)
