"""What the OpenAPI document says of vLLM's routes."""

from __future__ import annotations

from typing import Annotated, Any

from nearfar.dialects.kit.route_docs import RouteDocs, route_docs
from nearfar.dialects.vllm.bodies import (
    SCORE_SPELLINGS,
    ClassifyReply,
    ClassifyRequest,
    DetokenizeReply,
    DetokenizeRequest,
    LabelsReply,
    PoolingReply,
    PoolingRequest,
    ScoreReply,
    ScoreRequest,
    TokenizeReply,
    TokenizeRequest,
)


def _listed(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """Give what the OpenAPI document shows."""
    usage = {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0, "prompt_tokens_details": None}
    return {
        "id": f"{kind}-5f0c0a8d5e8f4d0c9b1a7e6d5c4b3a29",
        "object": "list",
        "created": 1764000000,
        "model": "my-model",
        "data": [found],
        "usage": usage,
    }


SCORE = route_docs(
    "How alike the texts of each pair are",
    body=Annotated[ScoreRequest, SCORE_SPELLINGS],
    reply=ScoreReply,
    example={"text_1": "Where is the cat?", "text_2": ["The cat sat on the mat.", "Rates rose."]},
    examples={
        "queries and documents": {
            "queries": ["Where is the cat?"],
            "documents": ["The cat sat on the mat."],
            "use_activation": False,
        }
    },
    reply_example={
        "id": "score-5f0c0a8d5e8f4d0c9b1a7e6d5c4b3a29",
        "object": "list",
        "created": 1764000000,
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "data": [{"index": 0, "object": "score", "score": 0.533}, {"index": 1, "object": "score", "score": 0.077}],
        "usage": {
            "prompt_tokens": 21,
            "total_tokens": 21,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        },
    },
)

CLASSIFY = route_docs(
    "The likeliest label of texts",
    body=ClassifyRequest,
    reply=(ClassifyReply, LabelsReply),
    example={"input": ["I like you."]},
    examples={"Infinity's": {"input": ["I like you."], "raw_scores": False}},
    reply_example=_listed("classify", {"index": 0, "label": "positive", "probs": [0.06, 0.94], "num_classes": 2}),
)

POOLING = route_docs(
    "A vector for each token",
    body=PoolingRequest,
    reply=PoolingReply,
    example={"input": "a cat", "task": "token_embed"},
    reply_example=_listed(
        "pool", {"index": 0, "object": "pooling", "data": [[0.214, -0.08, 0.102], [0.143, -0.077, -0.024]]}
    ),
)

DETOKENIZE = route_docs(
    "The text that tokens stand for",
    counts=False,
    body=DetokenizeRequest,
    reply=DetokenizeReply,
    example={"tokens": [1037, 4937]},
    reply_example={"prompt": "a cat"},
)

TOKENIZE = RouteDocs(
    summary="Tokens of a prompt, as the model reads it",
    counts=False,
    body=TokenizeRequest,
    reply=TokenizeReply,
    example={"prompt": "a cat"},
    reply_example={"count": 4, "max_model_len": 256, "tokens": [101, 1037, 4937, 102], "token_strs": None},
)
