"""The OpenAPI documentation of embed-rerank's routes."""

from __future__ import annotations

from typing import Annotated, Any

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
_VECTOR = [0.1431, -0.0766, -0.0241]
_PASSAGES = ["Bananas are yellow.", "The cat sat on the mat."]
_QUERY = "Where is the cat?"
_TIME = "2026-11-24T16:00:00.000000+00:00"

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
    reply_example={
        "embeddings": [{"embedding": _VECTOR, "index": 0, "text": "a cat on the sofa", "processing_info": None}],
        "vectors": [_VECTOR],
        "dim": 3,
        "backend": "torch",
        "device": "cpu",
        "processing_time": 0.0142,
        "model_info": _MODEL,
        "usage": {
            "total_texts": 1,
            "total_tokens": 7,
            "processing_time_ms": 14.2,
            "backend": "torch",
            "batch_size": 1,
            "normalize": True,
        },
        "timestamp": _TIME,
        "num_texts": 1,
    },
    headers=_HEADERS,
)

_RANKED: dict[str, Any] = {
    "results": [{"text": _PASSAGES[1], "score": 0.83, "index": 1}],
    "query": _QUERY,
    "backend": "torch",
    "device": "cpu",
    "method": "embedding_similarity",
    "processing_time": 0.0213,
    "model_info": _MODEL,
    "usage": {
        "total_passages": 2,
        "returned_passages": 1,
        "total_tokens": 24,
        "processing_time_ms": 21.3,
        "backend": "torch",
        "top_k": 1,
        "query_length": 17,
    },
    "timestamp": _TIME,
    "num_passages": 1,
}

_REQUEST = requires_any(RerankRequest, {"passages": NOT_EMPTY_LIST}, {"documents": NOT_EMPTY_LIST})
RERANK = route_docs(
    "Rank passages by relevance to a query, as in embed-rerank",
    body=_REQUEST,
    reply=RerankReply,
    example={"query": _QUERY, "passages": _PASSAGES, "top_k": 1},
    examples={"other names": {"query": _QUERY, "documents": [{"text": text} for text in _PASSAGES], "top_n": 2}},
    reply_example=_RANKED,
    headers=_HEADERS,
)

BATCH = route_docs(
    "Rank passages for several queries",
    body=Annotated[list[_REQUEST], json_schema(minItems=1)],  # type: ignore[valid-type]
    reply=list[RerankReply],
    example=[{"query": _QUERY, "passages": _PASSAGES, "top_k": 1}],
    reply_example=[_RANKED],
    headers=_HEADERS,
)

OPENAI = RouteDocs(
    summary="Rank documents by relevance to a query, as in embed-rerank's routes for OpenAI's clients",
    body=OpenAIRerankRequest,
    reply=OpenAIRerankReply,
    example={"query": _QUERY, "documents": _PASSAGES, "top_n": 1, "return_documents": True},
    reply_example={
        "object": "list",
        "data": [{"index": 1, "score": 0.83, "document": _PASSAGES[1]}],
        "model": _MODEL,
        "usage": {"total_passages": 2, "returned_passages": 1, "prompt_tokens": 24, "total_tokens": 24},
    },
    headers=_HEADERS,
)


def _service_info(service: str, operation: str, **own: object) -> dict[str, Any]:
    backend = {"name": "torch", "device": "cpu", "model_name": _MODEL, "dtype": "float32", "max_tokens": 256, **own}
    return {
        "service": service,
        "version": "0.1.0",
        "backend": backend,
        "available": True,
        "supported_operations": [operation],
    }


EMBED_INFO = route_docs(
    "Describe the default embedding model",
    reply=ServiceInfo,
    reply_example=_service_info("EmbeddingService", "embed_texts", embedding_dimension=384),
    headers=_HEADERS,
    raises=(ModelNotReady, WrongTask),
)

RERANK_INFO = route_docs(
    "Describe the default reranker",
    reply=ServiceInfo,
    reply_example=_service_info("RerankingService", "rerank_passages", method="embedding_similarity"),
    headers=_HEADERS,
    raises=(ModelNotReady, WrongTask),
)

HEALTH = route_docs(
    "Report whether the models can answer, as in embed-rerank",
    reply=HealthReply,
    reply_example={
        "status": "healthy",
        "openai_compatible": True,
        "backend": {"name": "torch", "device": "cpu", "model": _MODEL, "ready": True},
        "timestamp": 1764000000.0,
    },
    headers=_HEADERS,
    raises=(ModelNotReady, ShuttingDown),
)
