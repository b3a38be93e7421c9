"""The OpenAPI documentation of vLLM's routes."""

from __future__ import annotations

from typing import Annotated

from nearfar.dialects.kit.route_docs import RouteDocs, json_schema
from nearfar.dialects.vllm.bodies import (
    SCORE_SIDES,
    ClassificationData,
    ClassifyRequest,
    DetokenizeReply,
    DetokenizeRequest,
    InfinityClassifyReply,
    ListReply,
    PoolingData,
    PoolingRequest,
    RerankReply,
    RerankRequest,
    ScoreData,
    ScoreRequest,
    TokenizeReply,
    TokenizeRequest,
)

_SIDE = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]}
_ANY_SIDES = json_schema(
    anyOf=[{"required": [*sides], "properties": dict.fromkeys(sides, _SIDE)} for sides in SCORE_SIDES]
)


SCORE = RouteDocs(
    summary="Compare the texts of each pair",
    body=Annotated[ScoreRequest, _ANY_SIDES],
    reply=ListReply[ScoreData],
    example={"text_1": "Where is the cat?", "text_2": ["The cat sat on the mat.", "Rates rose."]},
    examples={
        "queries and documents": {
            "queries": ["Where is the cat?"],
            "documents": ["The cat sat on the mat."],
            "use_activation": False,
        }
    },
)

CLASSIFY = RouteDocs(
    summary="Classify texts",
    details="Returns each text's most probable label and all probabilities, or with ``raw_scores`` Infinity's form.",
    body=ClassifyRequest,
    reply=(ListReply[ClassificationData], InfinityClassifyReply),
    example={"input": ["I like you."]},
    examples={"Infinity's": {"input": ["I like you."], "raw_scores": False}},
)

POOLING = RouteDocs(
    summary="Embed each token of texts",
    body=PoolingRequest,
    reply=ListReply[PoolingData],
    example={"input": "a cat", "task": "token_embed"},
)

RERANK = RouteDocs(
    summary="Rank documents by relevance to a query, as in vLLM and Infinity",
    body=RerankRequest,
    reply=RerankReply,
    example={"query": "Where is the cat?", "documents": ["Bananas are yellow.", "The cat sat on the mat."], "top_n": 1},
)

TOKENIZE = RouteDocs(
    summary="Tokenize a prompt",
    counts=False,
    body=TokenizeRequest,
    reply=TokenizeReply,
    example={"prompt": "a cat"},
)

DETOKENIZE = RouteDocs(
    summary="Convert token ids to text",
    counts=False,
    body=DetokenizeRequest,
    reply=DetokenizeReply,
    example={"tokens": [1037, 4937]},
)
