"""What is known of families of models by their names, for folders that don't say it themselves.

Converted checkpoints often lack sentence-transformers' files. Pooling in another way than the authors did gives vectors
that look right and find the wrong texts: bge-m3 pooled by the mean has a cosine of 0.776 to its own. Every prompt and
pooling here was read in the model's own files or on its page, ``source``; what couldn't be is left out.
"""

from __future__ import annotations

import re

from msgspec import Struct

from nearfar.models.recipe.dense import Pooling


class Known(Struct, frozen=True, kw_only=True):
    """One family: the pattern its names have, its pooling, its prompts, and the page that says so.

    ``max_tokens`` is there where the model's own sentence_bert_config.json says less than its positions would allow.
    ``has_more`` tells of Dense layers after the pooling: a folder that doesn't name them can't be run. ``looks_ahead``
    tells of decoders trained to see the whole text. ``instead`` is the same model for transformers' own code, where the
    page's needs code of its own.
    """

    pattern: str
    pooling: Pooling
    prompts: dict[str, str] = {}
    source: str
    max_tokens: int | None = None
    normalize: bool = True
    has_more: bool = False
    looks_ahead: bool = False
    instead: str = ""


_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCT = {"query": f"Instruct: {_WEB_SEARCH}\nQuery: "}
# The page says that "query: " stands before both texts of a symmetric task, and before features of a classifier.
_E5 = {
    "query": "query: ",
    "document": "passage: ",
    "classification": "query: ",
    "clustering": "query: ",
    "similarity": "query: ",
}
_SEARCH = {"query": "search_query: ", "document": "search_document: "}
_BGE = {"query": "Represent this sentence for searching relevant passages: "}
_BGE_ZH = {"query": "为这个句子生成表示以用于检索相关文章："}  # noqa: RUF001 — the colon is theirs

KNOWN = (
    # BAAI: the first token; instructions for queries of the English and Chinese ones, none for bge-m3.
    Known(pattern="bge-m3", pooling="cls", source="BAAI/bge-m3"),
    Known(pattern=r"bge-(small|base|large)-en", pooling="cls", prompts=_BGE, source="BAAI/bge-large-en-v1.5"),
    Known(pattern=r"bge-(small|base|large)-zh", pooling="cls", prompts=_BGE_ZH, source="BAAI/bge-large-zh-v1.5"),
    Known(pattern=r"\bbge-", pooling="cls", source="BAAI/bge-base-en-v1.5"),
    # E5: the mean, except for the decoder.
    Known(pattern=r"e5-mistral", pooling="lasttoken", prompts=_INSTRUCT, source="intfloat/e5-mistral-7b-instruct"),
    Known(
        pattern="multilingual-e5-large-instruct",
        pooling="mean",
        prompts=_INSTRUCT,
        source="intfloat/multilingual-e5-large-instruct",
    ),
    Known(pattern="e5-(small|base|large)(?!.*instruct)", pooling="mean", prompts=_E5, source="intfloat/e5-large-v2"),
    Known(
        pattern="qwen3-embedding",
        pooling="lasttoken",
        prompts={"query": f"Instruct: {_WEB_SEARCH}\nQuery:"},  # no space at the end, unlike E5's
        source="Qwen/Qwen3-Embedding-0.6B",
    ),
    # GTE
    Known(
        pattern=r"gte-qwen[12]",
        pooling="lasttoken",
        prompts=_INSTRUCT,
        source="Alibaba-NLP/gte-Qwen2-7B-instruct",
        looks_ahead=True,
    ),
    Known(pattern=r"gte-(small|base|large)-(zh|en-v1)", pooling="cls", source="Alibaba-NLP/gte-large-en-v1.5"),
    Known(
        pattern="gte-multilingual",
        pooling="cls",
        source="Alibaba-NLP/gte-multilingual-base",
        instead="alibaba-nlp-community/gte-multilingual-base",
    ),
    Known(pattern="gte-modernbert", pooling="cls", source="Alibaba-NLP/gte-modernbert-base"),
    Known(pattern=r"gte-(small|base|large)\b", pooling="mean", source="thenlper/gte-large"),
    # Snowflake and those that ask as bge does
    Known(
        pattern="snowflake-arctic-embed-.*v2",
        pooling="cls",
        prompts={"query": "query: "},
        source="Snowflake/snowflake-arctic-embed-l-v2.0",
    ),
    Known(pattern="snowflake-arctic-embed", pooling="cls", prompts=_BGE, source="Snowflake/snowflake-arctic-embed-l"),
    Known(
        pattern="mxbai-embed-(large|2d)",
        pooling="cls",
        prompts=_BGE,
        source="mixedbread-ai/mxbai-embed-large-v1",
        normalize=False,
    ),
    # Nomic: a prefix a task
    Known(
        pattern="nomic-embed-text",
        pooling="mean",
        prompts=_SEARCH
        | {
            "classification": "classification: ",
            "clustering": "clustering: ",
            "similarity": "classification: ",  # as the config_sentence_transformers.json of v2 has it for STS
        },
        source="nomic-ai/nomic-embed-text-v1.5",
    ),
    Known(pattern="modernbert-embed", pooling="mean", prompts=_SEARCH, source="nomic-ai/modernbert-embed-base"),
    # sentence-transformers' own
    Known(pattern="all-minilm-l6", pooling="mean", source="sentence-transformers/all-MiniLM-L6-v2", max_tokens=256),
    Known(pattern="all-mpnet", pooling="mean", source="sentence-transformers/all-mpnet-base-v2", max_tokens=384),
    Known(pattern="all-(minilm|distilroberta)", pooling="mean", source="sentence-transformers/all-MiniLM-L12-v2"),
    Known(
        pattern="paraphrase-multilingual-(minilm|mpnet)",
        pooling="mean",
        source="sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        max_tokens=128,
        normalize=False,
    ),
    Known(
        pattern="paraphrase-",
        pooling="mean",
        source="sentence-transformers/paraphrase-MiniLM-L6-v2",
        normalize=False,
    ),
    Known(pattern="labse", pooling="cls", source="sentence-transformers/LaBSE", max_tokens=256, has_more=True),
    # Google: a task description in every prompt
    Known(
        pattern="embedding-?gemma-300m",
        pooling="mean",
        prompts={
            "query": "task: search result | query: ",
            "document": "title: none | text: ",
            "classification": "task: classification | query: ",
            "clustering": "task: clustering | query: ",
            "similarity": "task: sentence similarity | query: ",
        },
        source="google/embeddinggemma-300m",
        has_more=True,
    ),
    # Without a task: each of its five adapters gives other vectors, and asks for another prompt.
    Known(
        pattern="jina-embeddings-v3",
        pooling="mean",
        source="jinaai/jina-embeddings-v3",
        max_tokens=8192,
        instead="jinaai/jina-embeddings-v3-hf",
    ),
    # Its Dense layers lie in a folder a width, of which modules.json names one.
    Known(
        pattern=r"stella_en_.*_v5",
        pooling="mean",
        prompts=_INSTRUCT | {"similarity": "Instruct: Retrieve semantically similar text.\nQuery: "},
        source="NovaSearch/stella_en_400M_v5",
        max_tokens=512,
        has_more=True,
    ),
    Known(pattern="granite-embedding", pooling="cls", source="ibm-granite/granite-embedding-english-r2"),
)


def known_by(*names: str) -> Known | None:
    """Find the family that one of the names belongs to, the most telling name first."""
    return next((known for name in names for known in KNOWN if re.search(known.pattern, name.lower())), None)
