"""vLLM's routes for pairs, labels, token vectors and tokens."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import (
    Classified,
    ClassifyJob,
    DetokenizeJob,
    Ranked,
    Represented,
    RepresentJob,
    Scored,
    ScoreJob,
    Tokenized,
    TokenizeJob,
)
from nearfar.dialects.kit.declare import endpoint
from nearfar.dialects.kit.rendering import render_array
from nearfar.dialects.kit.route_docs import RouteDocs, json_schema
from nearfar.dialects.vllm.bodies import (
    SCORE_SIDES,
    ClassificationData,
    ClassifyRequest,
    DetokenizeReply,
    DetokenizeRequest,
    InfinityClassifyReply,
    InfinityLabel,
    ListReply,
    PairScoring,
    PoolingData,
    PoolingRequest,
    ScoreData,
    ScoreRequest,
    Texts,
    TokenizeReply,
    TokenizeRequest,
    UsageInfo,
)
from nearfar.serving.service import Service


def check_truncation(body: PairScoring) -> None:
    """Raise InputError for a truncation that isn't supported."""
    if body.truncate_prompt_tokens not in {None, -1}:
        raise InputError("truncate_prompt_tokens: only -1 is known here; max_tokens_per_doc cuts documents")


def envelope(kind: str, done: Scored | Classified | Represented | Ranked) -> dict[str, Any]:
    """Return the fields that all of vLLM's replies have."""
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": done.model,
        "usage": UsageInfo(done.usage.tokens, done.usage.tokens),
    }


def _score_job(body: ScoreRequest) -> ScoreJob:
    check_truncation(body)
    first, second = _sides(body)
    return ScoreJob(
        model=body.model or None,
        pairs=tuple(zip(first * len(second) if len(first) == 1 else first, second, strict=True)),
        max_tokens_per_document=body.max_tokens_per_doc or None,
        raw_scores=body.wants_logits,
    )


def _sides(body: ScoreRequest) -> tuple[list[str], list[str]]:
    """Return the two sides under whichever names they have. Raises InputError if they can't be paired."""
    sides = [(getattr(body, first), getattr(body, second)) for first, second in SCORE_SIDES]
    found = next((pair for pair in sides if None not in pair), None)
    if found is None:
        raise InputError("text_1 and text_2 are required, or queries with documents or items")
    first, second = ([side] if isinstance(side, str) else side for side in found)
    if len(first) > 1 and len(first) != len(second):
        raise InputError("Input lengths must be either 1:1, 1:N or N:N")
    if not first:
        raise EmptyInput("At least one text element must be given")
    if not second:
        raise EmptyInput("At least one text_pair element must be given")
    return first, second


def _score_reply(_: ScoreRequest, __: ScoreJob, done: Scored) -> ListReply[ScoreData]:
    data = [ScoreData(index=index, score=score) for index, score in enumerate(done.scores)]
    return ListReply(data=data, **envelope("score", done))


def _texts(texts: Texts) -> tuple[str, ...]:
    if not texts:
        raise EmptyInput("input must not be empty", "input")
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _classify_job(body: ClassifyRequest) -> ClassifyJob:
    raw_scores = bool(body.raw_scores) or body.wants_logits
    return ClassifyJob(model=body.model or None, inputs=_texts(body.input), raw_scores=raw_scores)


def _classify_reply(
    body: ClassifyRequest, _: ClassifyJob, done: Classified
) -> ListReply[ClassificationData] | InfinityClassifyReply:
    labels = done.labels or ("LABEL_0",)
    rows = [scores.tolist() for scores in done.scores]
    if body.raw_scores is None:  # Infinity's client always sends it, vLLM's clients never do
        data = [ClassificationData(index, labels[row.index(max(row))], row, len(row)) for index, row in enumerate(rows)]
        return ListReply(data=data, **envelope("classify", done))
    scored = [[InfinityLabel(*pair) for pair in zip(row, labels, strict=True)] for row in rows]
    ranked = [sorted(row, key=lambda label: -label.score) for row in scored]
    return InfinityClassifyReply(data=ranked, **envelope("classify", done))


def _pooling_job(body: PoolingRequest) -> RepresentJob:
    if body.task not in {None, "token_embed"}:
        raise InputError("task: only token_embed is supported; for other tasks use /v1/embeddings and /classify")
    return RepresentJob(model=body.model or None, inputs=_texts(body.input), outputs=("multi_vector",))


def _pooling_reply(_: PoolingRequest, __: RepresentJob, done: Represented) -> ListReply[PoolingData]:
    vectors = [text.multi_vector for text in done.texts if text.multi_vector is not None]
    data = [PoolingData(index, render_array(one)) for index, one in enumerate(vectors)]
    return ListReply(data=data, **envelope("pool", done))


def _tokenize_job(body: TokenizeRequest) -> TokenizeJob:
    return TokenizeJob(model=body.model or None, texts=(body.prompt,), special=body.add_special_tokens is not False)


def _tokenize_reply(body: TokenizeRequest, _: TokenizeJob, done: Tokenized) -> TokenizeReply:
    tokens = done.texts[0].tokens
    names = [token.token for token in tokens] if body.return_token_strs else None
    return TokenizeReply(len(tokens), done.max_tokens, [token.id for token in tokens], names)


def _detokenize_job(body: DetokenizeRequest) -> DetokenizeJob:
    return DetokenizeJob(model=body.model or None, ids=tuple(body.tokens))


_SIDE = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]}
_ANY_SIDES = json_schema(
    anyOf=[{"required": [*sides], "properties": dict.fromkeys(sides, _SIDE)} for sides in SCORE_SIDES]
)
_SCORE = RouteDocs(
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
SCORE = endpoint(_SCORE, _score_job, Service.score, _score_reply)
_CLASSIFY = RouteDocs(
    summary="Classify texts",
    details="Returns each text's most probable label and all probabilities, or with ``raw_scores`` Infinity's form.",
    body=ClassifyRequest,
    reply=(ListReply[ClassificationData], InfinityClassifyReply),
    example={"input": ["I like you."]},
    examples={"Infinity's": {"input": ["I like you."], "raw_scores": False}},
)
CLASSIFY = endpoint(_CLASSIFY, _classify_job, Service.classify, _classify_reply)
_POOLING = RouteDocs(
    summary="Embed each token of texts",
    body=PoolingRequest,
    reply=ListReply[PoolingData],
    example={"input": "a cat", "task": "token_embed"},
)
POOLING = endpoint(_POOLING, _pooling_job, Service.represent, _pooling_reply)
_TOKENIZE = RouteDocs(
    summary="Tokenize a prompt",
    counts=False,
    body=TokenizeRequest,
    reply=TokenizeReply,
    example={"prompt": "a cat"},
)
TOKENIZE = endpoint(_TOKENIZE, _tokenize_job, Service.tokenize, _tokenize_reply)
_DETOKENIZE = RouteDocs(
    summary="Convert token ids to text",
    counts=False,
    body=DetokenizeRequest,
    reply=DetokenizeReply,
    example={"tokens": [1037, 4937]},
)
DETOKENIZE = endpoint(
    _DETOKENIZE,
    _detokenize_job,
    Service.detokenize,
    lambda _, __, text: DetokenizeReply(text),
)
