"""What the OpenAPI document says of TEI's routes."""

from __future__ import annotations

from nearfar.dialects.described import Described, RowsOfNumbers, described
from nearfar.dialects.tei.bodies import (
    EmbedAllRequest,
    Prediction,
    PredictRequest,
    SimilarityRequest,
    SparseValue,
    Token,
    TokenizeRequest,
)

SIMILARITY = described(
    "How alike texts are to one",
    body=SimilarityRequest,
    reply=list[float],
    example={"inputs": {"source_sentence": "a cat on the sofa", "sentences": ["the cat sat on the mat", "rates rose"]}},
    reply_example=[0.629, -0.007],
)

EMBED_ALL = described(
    "A vector for each token",
    body=EmbedAllRequest,
    reply=list[RowsOfNumbers],
    example={"inputs": "a cat"},
    reply_example=[[[0.214, -0.08, 0.102], [0.143, -0.077, -0.024]]],
)

EMBED_SPARSE = described(
    "Weights of the vocabulary",
    body=EmbedAllRequest,
    reply=list[list[SparseValue]],
    example={"inputs": "a cat"},
    reply_example=[[{"index": 4937, "value": 1.82}, {"index": 8870, "value": 0.47}]],
)

PREDICT = described(
    "Labels of texts, or of pairs",
    body=PredictRequest,
    reply=list[Prediction] | list[list[Prediction]],
    example={"inputs": "I like you."},
    examples={"several": {"inputs": [["I like you."], ["I like you.", "I do not."]], "raw_scores": True}},
    reply_example=[{"score": 0.94, "label": "positive"}, {"score": 0.06, "label": "negative"}],
)

TOKENIZE = Described(
    summary="Tokens of texts, as the model reads them",
    body=TokenizeRequest,
    reply=list[list[Token]],
    example={"inputs": "a cat"},
    reply_example=[
        [
            {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None},
            {"id": 1037, "text": "a", "special": False, "start": 0, "stop": 1},
            {"id": 4937, "text": "cat", "special": False, "start": 2, "stop": 5},
            {"id": 102, "text": "[SEP]", "special": True, "start": None, "stop": None},
        ]
    ],
)
