"""vLLM's score, classify, pooling, tokenize and detokenize: https://docs.vllm.ai/en/latest/models/pooling_models."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import ClassifyJob, DetokenizeJob, RepresentJob, ScoreJob, TokenizeJob
from nearfar.dialects.kit.base import Dialect, SharedRoute, encoded_response, json_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.rendering import encode_json, numbers
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request
from nearfar.dialects.vllm.bodies import (
    Class,
    ClassifyReply,
    ClassifyRequest,
    DetokenizeReply,
    DetokenizeRequest,
    LabelScore,
    LabelsReply,
    Pooled,
    PoolingReply,
    PoolingRequest,
    Score,
    ScoreReply,
    ScoreRequest,
    Texts,
    TokenizeReply,
    TokenizeRequest,
    Tokens,
)
from nearfar.dialects.vllm.described import CLASSIFY, DETOKENIZE, POOLING, SCORE, TOKENIZE
from nearfar.dialects.vllm.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.vllm.rerank import RERANK, rerank

if TYPE_CHECKING:
    from nearfar.core.jobs import Classified, Scored, Usage
    from nearfar.dialects.kit.base import AnyRequest


_score = msgspec.json.Decoder(ScoreRequest)
_classify = msgspec.json.Decoder(ClassifyRequest)
_pooling = msgspec.json.Decoder(PoolingRequest)
_tokenize = msgspec.json.Decoder(TokenizeRequest)
_detokenize = msgspec.json.Decoder(DetokenizeRequest)


@post(
    ["/v1/score", "/score"],
    status_code=200,
    opt=SCORE,
)
async def score(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _score)
    if body.truncate_prompt_tokens not in {None, -1}:
        raise InputError("truncate_prompt_tokens: only -1 is known here; max_tokens_per_doc cuts documents")
    first, second = _sides(body)
    job = ScoreJob(
        model=body.model or None,
        pairs=tuple(zip(first * len(second) if len(first) == 1 else first, second, strict=True)),
        max_tokens_per_document=body.max_tokens_per_doc or None,
        raw_scores=False in {body.use_activation, body.activation},
    )
    done = await cancel_on_disconnect(request, service_of(request).score(job, caller_of(request.scope)))
    return json_response(
        _reply(done), headers=record_usage(request, done.model, len(job.pairs), done.usage, done.timings)
    )


@post(
    "/classify",
    status_code=200,
    opt=CLASSIFY,
)
async def classify(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give each text the likeliest of the model's labels, and how likely each is; all of them where Infinity asks."""
    body = await read_request(request, _classify)
    raw = bool(body.raw_scores) or False in {body.use_activation, body.activation}
    job = ClassifyJob(model=body.model or None, inputs=_several(body.input), raw_scores=raw)
    done = await cancel_on_disconnect(request, service_of(request).classify(job, caller_of(request.scope)))
    if body.raw_scores is not None:  # Infinity's client always says so, and vLLM's has no such word
        reply: LabelsReply | ClassifyReply = _labels(done)
    else:
        reply = ClassifyReply(
            id=_new_id("classify"),
            created=int(time.time()),
            model=done.model,
            data=_classes(done),
            usage=_counted(done.usage),
        )
    return json_response(reply, headers=record_usage(request, done.model, len(job.inputs), done.usage, done.timings))


@post(
    "/pooling",
    status_code=200,
    opt=POOLING,
)
async def pooling(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give a vector for each token that counts, (n, M) a text."""
    body = await read_request(request, _pooling)
    if body.task not in {None, "token_embed"}:
        raise InputError("task: only token_embed is known here; /v1/embeddings and /classify do the others")
    job = RepresentJob(model=body.model or None, inputs=_several(body.input), outputs=("multi_vector",))
    done = await cancel_on_disconnect(request, service_of(request).represent(job, caller_of(request.scope)))
    vectors = [one.multi_vector for one in done.texts if one.multi_vector is not None]

    def build() -> PoolingReply:
        return PoolingReply(
            id=_new_id("pool"),
            created=int(time.time()),
            model=done.model,
            data=[Pooled(index, numbers(one)) for index, one in enumerate(vectors)],
            usage=_counted(done.usage),
        )

    encoded = await encode_json(sum(one.size for one in vectors), build)
    return encoded_response(encoded, headers=record_usage(request, done.model, len(vectors), done.usage, done.timings))


async def tokenize(request: AnyRequest) -> Response[bytes]:
    body = await read_request(request, _tokenize)
    job = TokenizeJob(model=body.model or None, texts=(body.prompt,), special=body.add_special_tokens is not False)
    done = await cancel_on_disconnect(request, service_of(request).tokenize(job, caller_of(request.scope)))
    pieces = done.texts[0].tokens
    names = [piece.token for piece in pieces] if body.return_token_strs else None
    return json_response(TokenizeReply(len(pieces), done.max_tokens, [piece.id for piece in pieces], names))


@post(
    "/detokenize",
    status_code=200,
    opt=DETOKENIZE,
)
async def detokenize(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _detokenize)
    job = DetokenizeJob(model=body.model or None, ids=tuple(body.tokens))
    return json_response(
        DetokenizeReply(
            await cancel_on_disconnect(request, service_of(request).detokenize(job, caller_of(request.scope)))
        )
    )


def _sides(body: ScoreRequest) -> tuple[list[str], list[str]]:
    """Take both lists in whichever spelling they came, and see that they can be paired."""
    spellings = (
        (body.queries, body.documents),
        (body.queries, body.items),
        (body.data_1, body.data_2),
        (body.text_1, body.text_2),
    )
    found = next(((one, two) for one, two in spellings if one is not None and two is not None), None)
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


def _several(texts: Texts) -> tuple[str, ...]:
    if not texts:
        raise EmptyInput("input must not be empty", "input")
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _classes(done: Classified) -> list[Class]:
    labels = done.labels or ("LABEL_0",)
    rows = [scores.tolist() for scores in done.scores]
    return [Class(index, labels[row.index(max(row))], row, len(row)) for index, row in enumerate(rows)]


def _new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


def _counted(usage: Usage) -> Tokens:
    return Tokens(usage.tokens, usage.tokens)


def _labels(done: Classified) -> LabelsReply:
    labels = done.labels or ("LABEL_0",)
    rows = [[LabelScore(*pair) for pair in zip(scores.tolist(), labels, strict=True)] for scores in done.scores]
    return LabelsReply(
        id=_new_id("classify"),
        created=int(time.time()),
        model=done.model,
        data=[sorted(row, key=lambda found: -found.score) for row in rows],
        usage=_counted(done.usage),
    )


def _reply(done: Scored) -> ScoreReply:
    return ScoreReply(
        id=_new_id("score"),
        created=int(time.time()),
        model=done.model,
        data=[Score(index, "score", found) for index, found in enumerate(done.scores)],
        usage=_counted(done.usage),
    )


dialect = Dialect(
    name="vllm",
    handlers=[score, classify, pooling, detokenize],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="vLLM's pooling models: https://docs.vllm.ai/en/latest/models/pooling_models",
    prefixes=("/score", "/v1/score", "/classify", "/pooling", "/tokenize", "/detokenize", "/rerank"),
    shared=[
        # Last of those that share the path: what the others claim has fields that no client of vLLM or Infinity sends.
        SharedRoute(path="/rerank", fields=("documents",), precedence=3, handler=rerank, docs=RERANK),
        SharedRoute(
            path="/tokenize",
            fields=("prompt",),
            handler=tokenize,
            docs=TOKENIZE,
        ),
    ],
)
