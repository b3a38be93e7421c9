"""The OpenAPI documentation of vLLM's routes."""

from __future__ import annotations

from typing import Annotated, Any

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
_RANKED = [{"index": 1, "relevance_score": 0.83}]


def _list_reply(kind: str, *data: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "id": f"{kind}-5f0c0a8d5e8f4d0c9b1a7e6d5c4b3a29",
        "object": "list",
        "created": 1764000000,
        "model": "my-model",
        **more,
        "data": [*data],
        "usage": {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0, "prompt_tokens_details": None},
    }


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
    reply_example=_list_reply(
        "score", {"index": 0, "object": "score", "score": 0.533}, {"index": 1, "object": "score", "score": 0.077}
    ),
)

CLASSIFY = RouteDocs(
    summary="Classify texts",
    details="Returns each text's most probable label and all probabilities, or with ``raw_scores`` Infinity's form.",
    body=ClassifyRequest,
    reply=(ListReply[ClassificationData], InfinityClassifyReply),
    example={"input": ["I like you."]},
    examples={"Infinity's": {"input": ["I like you."], "raw_scores": False}},
    reply_example=_list_reply("classify", {"index": 0, "label": "positive", "probs": [0.06, 0.94], "num_classes": 2}),
)

POOLING = RouteDocs(
    summary="Embed each token of texts",
    body=PoolingRequest,
    reply=ListReply[PoolingData],
    example={"input": "a cat", "task": "token_embed"},
    reply_example=_list_reply(
        "pool", {"index": 0, "object": "pooling", "data": [[0.214, -0.08, 0.102], [0.143, -0.077, -0.024]]}
    ),
)

RERANK = RouteDocs(
    summary="Rank documents by relevance to a query, as in vLLM and Infinity",
    body=RerankRequest,
    reply=RerankReply,
    example={"query": "Where is the cat?", "documents": ["Bananas are yellow.", "The cat sat on the mat."], "top_n": 1},
    reply_example=_list_reply("rerank", *_RANKED, results=_RANKED),
)

TOKENIZE = RouteDocs(
    summary="Tokenize a prompt",
    counts=False,
    body=TokenizeRequest,
    reply=TokenizeReply,
    example={"prompt": "a cat"},
    reply_example={"count": 4, "max_model_len": 256, "tokens": [101, 1037, 4937, 102], "token_strs": None},
)

DETOKENIZE = RouteDocs(
    summary="Convert token ids to text",
    counts=False,
    body=DetokenizeRequest,
    reply=DetokenizeReply,
    example={"tokens": [1037, 4937]},
    reply_example={"prompt": "a cat"},
)
