"""The OpenAPI documentation of TEI's routes."""

from __future__ import annotations

from typing import Any

from nearfar.dialects.kit.route_docs import RouteDocs, RowsOfNumbers, route_docs
from nearfar.dialects.tei.bodies import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    HealthReply,
    Prediction,
    PredictRequest,
    Rank,
    RerankRequest,
    SimilarityRequest,
    SparseValue,
    Token,
    TokenizeRequest,
    VertexReply,
    VertexRequest,
    Welcome,
)
from nearfar.dialects.tei.headers import HEADERS, TOTAL_HEADERS

EMBED = RouteDocs(
    summary="Embed texts",
    body=EmbedRequest,
    reply=RowsOfNumbers,
    example={"inputs": ["a cat on the sofa", "stock prices fell"]},
    examples={
        "everything": {
            "inputs": "a cat on the sofa",
            "truncate": True,
            "truncation_direction": "Right",
            "prompt_name": "query",
            "normalize": True,
            "dimensions": 128,
        },
        "token ids": {"inputs": [[101, 1037, 4937, 102]]},
    },
    headers=HEADERS,
)

SIMILARITY = RouteDocs(
    summary="Compare texts with one text",
    body=SimilarityRequest,
    reply=list[float],
    example={"inputs": {"source_sentence": "a cat on the sofa", "sentences": ["the cat sat on the mat", "rates rose"]}},
    reply_example=[0.629, -0.007],
    headers=HEADERS,
)

EMBED_ALL = RouteDocs(
    summary="Embed each token of texts",
    body=EmbedAllRequest,
    reply=list[RowsOfNumbers],
    example={"inputs": "a cat"},
    headers=HEADERS,
)

EMBED_SPARSE = RouteDocs(
    summary="Embed texts as sparse vectors",
    body=EmbedAllRequest,
    reply=list[list[SparseValue]],
    example={"inputs": "a cat"},
    headers=HEADERS,
)

PREDICT = RouteDocs(
    summary="Classify texts or pairs of texts",
    body=PredictRequest,
    reply=(list[Prediction], list[list[Prediction]]),
    example={"inputs": "I like you."},
    examples={"several": {"inputs": [["I like you."], ["I like you.", "I do not."]], "raw_scores": True}},
    headers=HEADERS,
)

TOKENIZE = RouteDocs(
    summary="Tokenize texts",
    counts=False,
    body=TokenizeRequest,
    reply=list[list[Token]],
    example={"inputs": "a cat"},
)

RERANK = RouteDocs(
    summary="Rank texts by relevance to a query",
    body=RerankRequest,
    reply=list[Rank],
    example={"query": "Where is the cat?", "texts": ["Bananas are yellow.", "The cat sat on the mat."]},
    headers=HEADERS,
)

DECODE = RouteDocs(
    summary="Decode token ids",
    counts=False,
    body=DecodeRequest,
    reply=list[str],
    example={"ids": [101, 7592, 102]},
    examples={"several": {"ids": [[101, 7592, 102], [2088]], "skip_special_tokens": False}},
)

INVOKE = route_docs(
    "Embed, rank or classify, by the body's fields and the model's task",
    body=(EmbedRequest, RerankRequest),
    reply=list[Any],
    example={"inputs": "a cat on the sofa"},
    reply_example=[[0.1431, -0.0766, -0.0241]],
    headers=HEADERS,
)

VERTEX = route_docs(
    "Run several requests",
    body=VertexRequest,
    reply=VertexReply,
    example={"instances": [{"inputs": "a cat on the sofa"}, {"query": "a cat", "texts": ["a dog", "a kitten"]}]},
    reply_example={"predictions": [[[0.1431, -0.0766, -0.0241]], [{"index": 1, "score": 0.894}]]},
    headers=TOTAL_HEADERS,
)

HEALTH = route_docs(
    "Report whether the models can answer",
    reply=HealthReply,
    reply_example={"service": {"name": "nearfar", "version": "0.1.0"}},
)

WELCOME = route_docs(
    "Report that the process runs",
    reply=Welcome,
)
