"""The OpenAPI documentation of embed-rerank's routes."""

from __future__ import annotations

from typing import Annotated

from nearfar.core.errors import ModelNotReady, ShuttingDown, WrongTask
from nearfar.dialects.embed_rerank.bodies import (
    NOT_EMPTY_LIST,
    EmbedReply,
    EmbedRequest,
    HealthReply,
    OpenAIRerankReply,
    OpenAIRerankRequest,
    RerankReply,
    RerankRequest,
    ServiceInfo,
)
from nearfar.dialects.kit.route_docs import RouteDocs, json_schema, requires_any, route_docs

_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_HEADERS = {"x-process-time": "Seconds since the request began"}
_PASSAGES = ["Bananas are yellow.", "The cat sat on the mat."]
_QUERY = "Where is the cat?"

EMBED = route_docs(
    "Embed texts, as in embed-rerank",
    body=EmbedRequest,
    reply=EmbedReply,
    example={"texts": ["a cat on the sofa"]},
    examples={
        "everything": {
            "texts": ["a cat on the sofa", "stock prices fell"],
            "batch_size": 32,
            "normalize": True,
            "auto_truncate": True,
            "truncation_strategy": "smart_truncate",
            "max_tokens_override": 128,
            "return_processing_info": True,
        }
    },
    headers=_HEADERS,
)


_REQUEST = requires_any(RerankRequest, {"passages": NOT_EMPTY_LIST}, {"documents": NOT_EMPTY_LIST})
RERANK = route_docs(
    "Rank passages by relevance to a query, as in embed-rerank",
    body=_REQUEST,
    reply=RerankReply,
    example={"query": _QUERY, "passages": _PASSAGES, "top_k": 1},
    examples={"other names": {"query": _QUERY, "documents": [{"text": text} for text in _PASSAGES], "top_n": 2}},
    headers=_HEADERS,
)

BATCH = route_docs(
    "Rank passages for several queries",
    body=Annotated[list[_REQUEST], json_schema(minItems=1)],  # type: ignore[valid-type]
    reply=list[RerankReply],
    example=[{"query": _QUERY, "passages": _PASSAGES, "top_k": 1}],
    headers=_HEADERS,
)

OPENAI = RouteDocs(
    summary="Rank documents by relevance to a query, as in embed-rerank's routes for OpenAI's clients",
    body=OpenAIRerankRequest,
    reply=OpenAIRerankReply,
    example={"query": _QUERY, "documents": _PASSAGES, "top_n": 1, "return_documents": True},
    headers=_HEADERS,
)


EMBED_INFO = route_docs(
    "Describe the default embedding model",
    reply=ServiceInfo,
    reply_example={"service": "EmbeddingService", "supported_operations": ["embed_texts"]},
    headers=_HEADERS,
    raises=(ModelNotReady, WrongTask),
)

RERANK_INFO = route_docs(
    "Describe the default reranker",
    reply=ServiceInfo,
    reply_example={"service": "RerankingService", "supported_operations": ["rerank_passages"]},
    headers=_HEADERS,
    raises=(ModelNotReady, WrongTask),
)

HEALTH = route_docs(
    "Report whether the models can answer, as in embed-rerank",
    reply=HealthReply,
    headers=_HEADERS,
    raises=(ModelNotReady, ShuttingDown),
)
