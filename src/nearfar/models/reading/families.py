"""Known model families, for folders that don't state their pooling, prompts or limits.

Converted checkpoints often lack sentence-transformers' files. A wrong pooling makes plausible vectors that find the
wrong texts: bge-m3 pooled by mean has a cosine of 0.776 to its own vectors. Every fact here was read in the files or on
the page of ``source``; what couldn't be verified is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from nearfar.models.files.config import find_sentence_file
from nearfar.models.recipe.dense import Pooling


class FamilyDefaults(Struct, frozen=True):
    """What a family's models do where their folder doesn't state it."""

    # A regular expression, searched in the lowercased name.
    pattern: str
    pooling: Pooling
    # The Hugging Face repository that states all of this.
    source: str
    # Prefixes by role.
    prompts: dict[str, str] = {}
    # The limit of its sentence_bert_config.json, where that is below what its positions allow.
    max_tokens: int | None = None
    normalize: bool = True
    # Whether Dense layers follow pooling; a folder that doesn't describe them can't be run.
    has_dense_layers: bool = False
    # Whether it is a decoder that was trained without a causal mask.
    bidirectional: bool = False
    # The same model for transformers' own code, where ``source`` needs remote code.
    native_checkpoint: str = ""

    @property
    def reason(self) -> str:
        """Why a model is assumed to do the same."""
        return f"as {self.source}, by its name"


_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCT = {"query": f"Instruct: {_WEB_SEARCH}\nQuery: "}
# Its page recommends "query: " for both texts of a symmetric task, and for classification and clustering.
_E5 = {"query": "query: ", "document": "passage: "}
_E5 |= dict.fromkeys(("classification", "clustering", "similarity"), "query: ")
_SEARCH = {"query": "search_query: ", "document": "search_document: "}
_NOMIC = _SEARCH | {
    "classification": "classification: ",
    "clustering": "clustering: ",
    "similarity": "classification: ",  # as the config_sentence_transformers.json of v2 has it for STS
}
_GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "classification": "task: classification | query: ",
    "clustering": "task: clustering | query: ",
    "similarity": "task: sentence similarity | query: ",
}
_QWEN3 = {"query": f"Instruct: {_WEB_SEARCH}\nQuery:"}  # no trailing space, unlike E5's
_STELLA = _INSTRUCT | {"similarity": "Instruct: Retrieve semantically similar text.\nQuery: "}
_BGE = {"query": "Represent this sentence for searching relevant passages: "}
_BGE_ZH = {"query": "为这个句子生成表示以用于检索相关文章："}  # noqa: RUF001 — the authors' own colon

FAMILIES = (
    # BAAI: CLS pooling; query instructions for the English and Chinese models, none for bge-m3
    FamilyDefaults("bge-m3", "cls", "BAAI/bge-m3"),
    FamilyDefaults("bge-(small|base|large)-en", "cls", "BAAI/bge-large-en-v1.5", _BGE),
    FamilyDefaults("bge-(small|base|large)-zh", "cls", "BAAI/bge-large-zh-v1.5", _BGE_ZH),
    FamilyDefaults(r"\bbge-", "cls", "BAAI/bge-base-en-v1.5"),
    # E5: mean pooling, except for the decoder
    FamilyDefaults("e5-mistral", "lasttoken", "intfloat/e5-mistral-7b-instruct", _INSTRUCT),
    FamilyDefaults("multilingual-e5-large-instruct", "mean", "intfloat/multilingual-e5-large-instruct", _INSTRUCT),
    FamilyDefaults("e5-(small|base|large)(?!.*instruct)", "mean", "intfloat/e5-large-v2", _E5),
    FamilyDefaults("qwen3-embedding", "lasttoken", "Qwen/Qwen3-Embedding-0.6B", _QWEN3),
    # GTE
    FamilyDefaults("gte-qwen[12]", "lasttoken", "Alibaba-NLP/gte-Qwen2-7B-instruct", _INSTRUCT, bidirectional=True),
    FamilyDefaults("gte-(small|base|large)-(zh|en-v1)", "cls", "Alibaba-NLP/gte-large-en-v1.5"),
    FamilyDefaults(
        "gte-multilingual",
        "cls",
        "Alibaba-NLP/gte-multilingual-base",
        native_checkpoint="alibaba-nlp-community/gte-multilingual-base",
    ),
    FamilyDefaults("gte-modernbert", "cls", "Alibaba-NLP/gte-modernbert-base"),
    FamilyDefaults(r"gte-(small|base|large)\b", "mean", "thenlper/gte-large"),
    # Snowflake, and others with BGE's query instruction
    FamilyDefaults(
        "snowflake-arctic-embed-.*v2", "cls", "Snowflake/snowflake-arctic-embed-l-v2.0", {"query": "query: "}
    ),
    FamilyDefaults("snowflake-arctic-embed", "cls", "Snowflake/snowflake-arctic-embed-l", _BGE),
    FamilyDefaults("mxbai-embed-(large|2d)", "cls", "mixedbread-ai/mxbai-embed-large-v1", _BGE, normalize=False),
    # Nomic: a prefix for each task
    FamilyDefaults("nomic-embed-text", "mean", "nomic-ai/nomic-embed-text-v1.5", _NOMIC),
    FamilyDefaults("modernbert-embed", "mean", "nomic-ai/modernbert-embed-base", _SEARCH),
    # sentence-transformers' own
    FamilyDefaults("all-minilm-l6", "mean", "sentence-transformers/all-MiniLM-L6-v2", max_tokens=256),
    FamilyDefaults("all-mpnet", "mean", "sentence-transformers/all-mpnet-base-v2", max_tokens=384),
    FamilyDefaults("all-(minilm|distilroberta)", "mean", "sentence-transformers/all-MiniLM-L12-v2"),
    FamilyDefaults(
        "paraphrase-multilingual-(minilm|mpnet)",
        "mean",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        max_tokens=128,
        normalize=False,
    ),
    FamilyDefaults("paraphrase-", "mean", "sentence-transformers/paraphrase-MiniLM-L6-v2", normalize=False),
    FamilyDefaults("labse", "cls", "sentence-transformers/LaBSE", max_tokens=256, has_dense_layers=True),
    # Google: every prompt describes the task
    FamilyDefaults("embedding-?gemma-300m", "mean", "google/embeddinggemma-300m", _GEMMA, has_dense_layers=True),
    # Jina: without a task adapter; each of the five makes other vectors and needs another prompt
    FamilyDefaults(
        "jina-embeddings-v3",
        "mean",
        "jinaai/jina-embeddings-v3",
        max_tokens=8192,
        native_checkpoint="jinaai/jina-embeddings-v3-hf",
    ),
    # Stella: one folder of Dense layers for each width, of which modules.json names one
    FamilyDefaults(
        "stella_en_.*_v5", "mean", "NovaSearch/stella_en_400M_v5", _STELLA, max_tokens=512, has_dense_layers=True
    ),
    FamilyDefaults("granite-embedding", "cls", "ibm-granite/granite-embedding-english-r2"),
)


# The names under which their files have the prompts of queries and documents: Stella's, E5-Mistral's, Nomic's, Jina's.
_PROMPT_NAMES = {
    "query": ("s2p_query", "web_search_query", "search_query", "retrieval.query"),
    "document": ("passage", "search_document", "retrieval.passage"),
}


def name_roles(prompts: dict[str, str]) -> dict[str, str]:
    """Return a known family's prompts with those of queries and documents under these names, too."""
    found = {
        role: prompts[name]
        for role, names in _PROMPT_NAMES.items()
        for name in names
        if name in prompts and role not in prompts
    }
    return prompts | found


def find_family(*names: str) -> FamilyDefaults | None:
    """Return the family of the first name that has one, None if none has."""
    return next((family for name in names for family in FAMILIES if re.search(family.pattern, name.lower())), None)


def default_max_tokens(folder: Path, family: FamilyDefaults | None, tokenizer_limit: float | None) -> float | None:
    """Return the token limit of a folder that states none for sentence-transformers."""
    if family is None or find_sentence_file(folder).is_file():
        return tokenizer_limit
    return min((limit for limit in (family.max_tokens, tokenizer_limit) if limit), default=None)
