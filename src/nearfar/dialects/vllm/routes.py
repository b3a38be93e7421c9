"""vLLM's routes for pairs, labels, token vectors and tokens."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import ClassifyJob, DetokenizeJob, RepresentJob, ScoreJob, TokenizeJob
from nearfar.dialects.kit.endpoint import encoded_response, json_response, record_usage
from nearfar.dialects.kit.rendering import encode_json, numbers
from nearfar.dialects.kit.request import caller_of, cancel_on_disconnect, read_request, service_of
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
from nearfar.dialects.vllm.route_docs import CLASSIFY, DETOKENIZE, POOLING, SCORE

if TYPE_CHECKING:
    from nearfar.core.jobs import Classified, Ranked, Represented, Scored
    from nearfar.dialects.kit.request import AnyRequest

_score = msgspec.json.Decoder(ScoreRequest)
_classify = msgspec.json.Decoder(ClassifyRequest)
_pooling = msgspec.json.Decoder(PoolingRequest)
_tokenize = msgspec.json.Decoder(TokenizeRequest)
_detokenize = msgspec.json.Decoder(DetokenizeRequest)


@post(["/v1/score", "/score"], status_code=200, opt=SCORE)
async def score(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _score)
    check_truncation(body)
    first, second = _sides(body)
    job = ScoreJob(
        model=body.model or None,
        pairs=tuple(zip(first * len(second) if len(first) == 1 else first, second, strict=True)),
        max_tokens_per_document=body.max_tokens_per_doc or None,
        raw_scores=body.wants_logits,
    )
    done = await cancel_on_disconnect(request, service_of(request).score(job, caller_of(request.scope)))
    data = [ScoreData(index=index, score=value) for index, value in enumerate(done.scores)]
    reply = ListReply(data=data, **envelope("score", done))
    return json_response(reply, headers=_headers(request, done, len(job.pairs)))


@post("/classify", status_code=200, opt=CLASSIFY)
async def classify(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the most probable label of each text and all probabilities, or with ``raw_scores`` Infinity's form."""
    body = await read_request(request, _classify)
    job = ClassifyJob(
        model=body.model or None, inputs=_texts(body.input), raw_scores=bool(body.raw_scores) or body.wants_logits
    )
    done = await cancel_on_disconnect(request, service_of(request).classify(job, caller_of(request.scope)))
    # Infinity's client always sends raw_scores, vLLM's clients never do.
    if body.raw_scores is None:
        reply: object = ListReply(data=_classifications(done), **envelope("classify", done))
    else:
        reply = InfinityClassifyReply(data=_sorted_labels(done), **envelope("classify", done))
    return json_response(reply, headers=_headers(request, done, len(job.inputs)))


@post("/pooling", status_code=200, opt=POOLING)
async def pooling(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Embed each token of the texts, (n, M) a text."""
    body = await read_request(request, _pooling)
    if body.task not in {None, "token_embed"}:
        raise InputError("task: only token_embed is supported; for other tasks use /v1/embeddings and /classify")
    job = RepresentJob(model=body.model or None, inputs=_texts(body.input), outputs=("multi_vector",))
    done = await cancel_on_disconnect(request, service_of(request).represent(job, caller_of(request.scope)))
    vectors = [one.multi_vector for one in done.texts if one.multi_vector is not None]

    def build() -> ListReply[PoolingData]:
        data = [PoolingData(index, numbers(one)) for index, one in enumerate(vectors)]
        return ListReply(data=data, **envelope("pool", done))

    encoded = await encode_json(sum(one.size for one in vectors), build)
    return encoded_response(encoded, headers=_headers(request, done, len(vectors)))


async def tokenize(request: AnyRequest) -> Response[bytes]:
    body = await read_request(request, _tokenize)
    job = TokenizeJob(model=body.model or None, texts=(body.prompt,), special=body.add_special_tokens is not False)
    done = await cancel_on_disconnect(request, service_of(request).tokenize(job, caller_of(request.scope)))
    tokens = done.texts[0].tokens
    names = [token.token for token in tokens] if body.return_token_strs else None
    return json_response(TokenizeReply(len(tokens), done.max_tokens, [token.id for token in tokens], names))


@post("/detokenize", status_code=200, opt=DETOKENIZE)
async def detokenize(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _detokenize)
    job = DetokenizeJob(model=body.model or None, ids=tuple(body.tokens))
    text = await cancel_on_disconnect(request, service_of(request).detokenize(job, caller_of(request.scope)))
    return json_response(DetokenizeReply(text))


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


def _headers(request: AnyRequest, done: Scored | Classified | Represented, rows: int) -> dict[str, str]:
    return record_usage(request, done.model, rows, done.usage, done.timings)


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


def _texts(texts: Texts) -> tuple[str, ...]:
    if not texts:
        raise EmptyInput("input must not be empty", "input")
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _classifications(done: Classified) -> list[ClassificationData]:
    labels = done.labels or ("LABEL_0",)
    rows = [scores.tolist() for scores in done.scores]
    return [ClassificationData(index, labels[row.index(max(row))], row, len(row)) for index, row in enumerate(rows)]


def _sorted_labels(done: Classified) -> list[list[InfinityLabel]]:
    labels = done.labels or ("LABEL_0",)
    rows = [[InfinityLabel(*pair) for pair in zip(scores.tolist(), labels, strict=True)] for scores in done.scores]
    return [sorted(row, key=lambda label: -label.score) for row in rows]
