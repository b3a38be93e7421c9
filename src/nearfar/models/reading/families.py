"""Known model families, for folders that don't state their pooling, prompts or limits.

Converted checkpoints often lack sentence-transformers' files. A wrong pooling makes plausible vectors that find the
wrong texts: bge-m3 pooled by mean has a cosine of 0.776 to its own vectors. Every fact here was read in the files or on
the page of ``source``; what couldn't be verified is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from nearfar.models.files.config import SENTENCE_FILES
from nearfar.models.recipe.dense import Pooling


class FamilyDefaults(Struct, frozen=True, kw_only=True):
    """What a family's models do where their folder doesn't state it."""

    # A regular expression, searched in the lowercased name.
    pattern: str
    pooling: Pooling
    # Prefixes by role.
    prompts: dict[str, str] = {}
    # The Hugging Face repository that states all of this.
    source: str
    # The limit of its sentence_bert_config.json, where that is below what its positions allow.
    max_tokens: int | None = None
    normalize: bool = True
    # Whether Dense layers follow pooling; a folder that doesn't describe them can't be run.
    has_dense_layers: bool = False
    # Whether it is a decoder that was trained without a causal mask.
    bidirectional: bool = False
    # The same model for transformers' own code, where ``source`` needs remote code.
    native_checkpoint: str = ""


_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCT = {"query": f"Instruct: {_WEB_SEARCH}\nQuery: "}
# Its page recommends "query: " for both texts of a symmetric task, and for classification and clustering.
_E5 = {
    "query": "query: ",
    "document": "passage: ",
    "classification": "query: ",
    "clustering": "query: ",
    "similarity": "query: ",
}
_SEARCH = {"query": "search_query: ", "document": "search_document: "}
_BGE = {"query": "Represent this sentence for searching relevant passages: "}
_BGE_ZH = {"query": "为这个句子生成表示以用于检索相关文章："}  # noqa: RUF001 — the authors' own colon

FAMILIES = (
    # BAAI: CLS pooling; query instructions for the English and Chinese models, none for bge-m3
    FamilyDefaults(pattern="bge-m3", pooling="cls", source="BAAI/bge-m3"),
    FamilyDefaults(pattern=r"bge-(small|base|large)-en", pooling="cls", prompts=_BGE, source="BAAI/bge-large-en-v1.5"),
    FamilyDefaults(
        pattern=r"bge-(small|base|large)-zh", pooling="cls", prompts=_BGE_ZH, source="BAAI/bge-large-zh-v1.5"
    ),
    FamilyDefaults(pattern=r"\bbge-", pooling="cls", source="BAAI/bge-base-en-v1.5"),
    # E5: mean pooling, except for the decoder
    FamilyDefaults(
        pattern=r"e5-mistral", pooling="lasttoken", prompts=_INSTRUCT, source="intfloat/e5-mistral-7b-instruct"
    ),
    FamilyDefaults(
        pattern="multilingual-e5-large-instruct",
        pooling="mean",
        prompts=_INSTRUCT,
        source="intfloat/multilingual-e5-large-instruct",
    ),
    FamilyDefaults(
        pattern="e5-(small|base|large)(?!.*instruct)", pooling="mean", prompts=_E5, source="intfloat/e5-large-v2"
    ),
    FamilyDefaults(
        pattern="qwen3-embedding",
        pooling="lasttoken",
        prompts={"query": f"Instruct: {_WEB_SEARCH}\nQuery:"},  # no trailing space, unlike E5's
        source="Qwen/Qwen3-Embedding-0.6B",
    ),
    # GTE
    FamilyDefaults(
        pattern=r"gte-qwen[12]",
        pooling="lasttoken",
        prompts=_INSTRUCT,
        source="Alibaba-NLP/gte-Qwen2-7B-instruct",
        bidirectional=True,
    ),
    FamilyDefaults(pattern=r"gte-(small|base|large)-(zh|en-v1)", pooling="cls", source="Alibaba-NLP/gte-large-en-v1.5"),
    FamilyDefaults(
        pattern="gte-multilingual",
        pooling="cls",
        source="Alibaba-NLP/gte-multilingual-base",
        native_checkpoint="alibaba-nlp-community/gte-multilingual-base",
    ),
    FamilyDefaults(pattern="gte-modernbert", pooling="cls", source="Alibaba-NLP/gte-modernbert-base"),
    FamilyDefaults(pattern=r"gte-(small|base|large)\b", pooling="mean", source="thenlper/gte-large"),
    # Snowflake, and others with BGE's query instruction
    FamilyDefaults(
        pattern="snowflake-arctic-embed-.*v2",
        pooling="cls",
        prompts={"query": "query: "},
        source="Snowflake/snowflake-arctic-embed-l-v2.0",
    ),
    FamilyDefaults(
        pattern="snowflake-arctic-embed", pooling="cls", prompts=_BGE, source="Snowflake/snowflake-arctic-embed-l"
    ),
    FamilyDefaults(
        pattern="mxbai-embed-(large|2d)",
        pooling="cls",
        prompts=_BGE,
        source="mixedbread-ai/mxbai-embed-large-v1",
        normalize=False,
    ),
    # Nomic: a prefix for each task
    FamilyDefaults(
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
    FamilyDefaults(
        pattern="modernbert-embed", pooling="mean", prompts=_SEARCH, source="nomic-ai/modernbert-embed-base"
    ),
    # sentence-transformers' own
    FamilyDefaults(
        pattern="all-minilm-l6", pooling="mean", source="sentence-transformers/all-MiniLM-L6-v2", max_tokens=256
    ),
    FamilyDefaults(
        pattern="all-mpnet", pooling="mean", source="sentence-transformers/all-mpnet-base-v2", max_tokens=384
    ),
    FamilyDefaults(
        pattern="all-(minilm|distilroberta)", pooling="mean", source="sentence-transformers/all-MiniLM-L12-v2"
    ),
    FamilyDefaults(
        pattern="paraphrase-multilingual-(minilm|mpnet)",
        pooling="mean",
        source="sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        max_tokens=128,
        normalize=False,
    ),
    FamilyDefaults(
        pattern="paraphrase-",
        pooling="mean",
        source="sentence-transformers/paraphrase-MiniLM-L6-v2",
        normalize=False,
    ),
    FamilyDefaults(
        pattern="labse", pooling="cls", source="sentence-transformers/LaBSE", max_tokens=256, has_dense_layers=True
    ),
    # Google: every prompt describes the task
    FamilyDefaults(
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
        has_dense_layers=True,
    ),
    # Jina: without a task adapter; each of the five makes other vectors and needs another prompt
    FamilyDefaults(
        pattern="jina-embeddings-v3",
        pooling="mean",
        source="jinaai/jina-embeddings-v3",
        max_tokens=8192,
        native_checkpoint="jinaai/jina-embeddings-v3-hf",
    ),
    # Stella: one folder of Dense layers for each width, of which modules.json names one
    FamilyDefaults(
        pattern=r"stella_en_.*_v5",
        pooling="mean",
        prompts=_INSTRUCT | {"similarity": "Instruct: Retrieve semantically similar text.\nQuery: "},
        source="NovaSearch/stella_en_400M_v5",
        max_tokens=512,
        has_dense_layers=True,
    ),
    FamilyDefaults(pattern="granite-embedding", pooling="cls", source="ibm-granite/granite-embedding-english-r2"),
)


def find_family(*names: str) -> FamilyDefaults | None:
    """Return the family of the first name that has one, None if none has."""
    return next((family for name in names for family in FAMILIES if re.search(family.pattern, name.lower())), None)


def default_max_tokens(folder: Path, family: FamilyDefaults | None, tokenizer_limit: float | None) -> float | None:
    """Return the token limit of a folder that states none for sentence-transformers."""
    if family is None or any((folder / name).is_file() for name in SENTENCE_FILES):
        return tokenizer_limit
    return min((limit for limit in (family.max_tokens, tokenizer_limit) if limit), default=None)
