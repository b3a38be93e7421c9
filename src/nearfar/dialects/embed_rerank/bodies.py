"""The bodies of embed-rerank's requests and answers. Null means absent; unknown fields are ignored.

``model`` and ``instruction`` are additions. Without ``model`` the task's default model answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Struct, UnsetType

from nearfar.dialects.kit.route_docs import NOT_BLANK, AtLeastOne, EngineName, NotBlank, Numbers, each_item, json_schema


class EmbedRequest(Struct, kw_only=True):
    """The body of POST /api/v1/embed.

    Every ``truncation_strategy`` but ``error`` truncates the end of a text; finding its most important sentences would
    take a model. ``batch_size`` has no effect, since batches combine the texts of all callers. Without ``normalize``
    the model decides.
    """

    texts: Annotated[list[NotBlank], json_schema(minItems=1)]
    batch_size: int | None = None
    normalize: bool | None = None
    auto_truncate: bool | None = None
    truncation_strategy: Literal["smart_truncate", "truncate", "extract", "error"] | None = None
    max_tokens_override: AtLeastOne | None = None
    return_processing_info: bool | None = None
    model: str | None = None


class ProcessingInfo(Struct, kw_only=True):
    """A text's tokens before and after truncation, special tokens included."""

    original_tokens: int
    processed_tokens: int
    truncated: bool
    strategy: str
    warnings: list[str]
    token_reduction: int
    reduction_percentage: float


class EmbeddedText(Struct, kw_only=True):
    """A text's vector, and the beginning of the text."""

    embedding: Numbers
    index: int
    text: str
    processing_info: ProcessingInfo | None


class EmbedUsage(Struct, kw_only=True):
    """The texts, tokens and time of an answer. ``batch_size`` is the number of texts queued at once, which is all."""

    total_texts: int
    total_tokens: int
    processing_time_ms: float
    backend: str
    batch_size: int
    normalize: bool


class EmbedReply(Struct, kw_only=True):
    """The body of an answer, in the request's order. ``vectors`` repeats the vectors of ``embeddings``."""

    embeddings: list[EmbeddedText]
    vectors: list[Numbers]
    dim: int
    backend: str
    device: str
    processing_time: float
    model_info: str
    usage: EmbedUsage
    timestamp: str
    num_texts: int


class DocumentObject(Struct, kw_only=True):
    """A document as an object. Its text is the first of these fields that isn't empty."""

    text: str | None = None
    content: str | None = None
    body: str | None = None
    value: str | None = None


_NAMES = ("text", "content", "body", "value")
_TEXT_OR_EMPTY: dict[str, Any] = {"anyOf": [NOT_BLANK, {"type": "null"}, {"const": ""}]}
_WITH_TEXT: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(_NAMES, _TEXT_OR_EMPTY),
    "anyOf": [{"required": [name], "properties": {name: NOT_BLANK}} for name in _NAMES],
}
Passages = Annotated[list[str | DocumentObject], json_schema(minItems=1, **each_item(NOT_BLANK, _WITH_TEXT))]
NOT_EMPTY_LIST: dict[str, Any] = {"type": "array", "minItems": 1}


class RerankRequest(Struct, kw_only=True):
    """The body of POST /api/v1/rerank. ``documents`` and ``top_n`` are other names for ``passages`` and ``top_k``.

    Without ``top_k`` the best 10 are returned, as in embed-rerank; null means all.
    """

    query: NotBlank
    passages: Passages | None = None
    documents: Passages | None = None
    top_k: AtLeastOne | UnsetType | None = UNSET
    top_n: AtLeastOne | UnsetType | None = UNSET
    return_documents: bool | None = None
    model: str | None = None
    instruction: str | None = None


class RankedPassage(Struct, kw_only=True, omit_defaults=True):
    """A passage's index and score; without ``return_documents`` false also its text."""

    text: str | UnsetType = UNSET
    score: float
    index: int


class RerankUsage(Struct, kw_only=True):
    """The passages, tokens and time of an answer. ``query_length`` is in characters."""

    total_passages: int
    returned_passages: int
    total_tokens: int
    processing_time_ms: float
    backend: str
    top_k: int
    query_length: int


class RerankReply(Struct, kw_only=True):
    """The body of an answer, best first. ``num_passages`` is the number of results."""

    results: list[RankedPassage]
    query: str
    backend: str
    device: str
    method: str
    processing_time: float
    model_info: str
    usage: RerankUsage
    timestamp: str
    num_passages: int


class OpenAIRerankRequest(Struct, kw_only=True):
    """The body of POST /v1/openai/rerank. Without ``top_n``, or with 0, all documents are returned."""

    query: NotBlank
    documents: Passages
    top_n: int | None = None
    return_documents: bool | None = None
    model: str | None = None
    instruction: str | None = None


class OpenAIRanked(Struct, kw_only=True, omit_defaults=True):
    """A document's index and score; with ``return_documents`` also the document."""

    index: int
    score: float
    document: str | UnsetType = UNSET


class OpenAIUsage(Struct, kw_only=True):
    """The documents and tokens of an answer."""

    total_passages: int
    returned_passages: int
    prompt_tokens: int
    total_tokens: int


class OpenAIRerankReply(Struct, kw_only=True):
    """The body of an answer to POST /v1/openai/rerank, best first."""

    object: str = "list"
    data: list[OpenAIRanked]
    model: str
    usage: OpenAIUsage


class Backend(Struct, kw_only=True):
    """A model and its engine."""

    name: EngineName
    device: str
    model_name: str
    dtype: str
    max_tokens: int
    embedding_dimension: int | UnsetType = UNSET
    method: str | UnsetType = UNSET


class ServiceInfo(Struct, kw_only=True):
    """The body of GET /api/v1/embed/info and /api/v1/rerank/info. ``available``: loaded in memory."""

    service: str
    version: str
    backend: Backend
    available: bool
    supported_operations: list[str]


class HealthBackend(Struct, kw_only=True):
    """The embedding model and its engine."""

    name: EngineName
    device: str
    model: str
    ready: bool


class HealthReply(Struct, kw_only=True):
    """The body of GET /v1/health on a healthy server."""

    status: str
    openai_compatible: bool
    backend: HealthBackend | UnsetType = UNSET
    timestamp: float
