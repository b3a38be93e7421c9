"""TEI's ranking of texts against a query, and its classification of texts and pairs."""

from __future__ import annotations

from msgspec import UNSET

from nearfar.core.errors import InputError
from nearfar.core.jobs import Classified, ClassifyJob, Ranked, RankJob
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import LabelScore, sorted_labels
from nearfar.dialects.kit.route_docs import RouteDocs
from nearfar.dialects.tei.bodies import LabelParameters, PredictRequest, Rank, RerankRequest
from nearfar.dialects.tei.headers import HEADERS, compute_headers
from nearfar.dialects.tei.inputs import check_count, is_single, overflow, parse_sequences
from nearfar.serving.service import Service

_MAX_TEXTS = 10_000  # as in Cohere's protocol


def _rank_job(body: RerankRequest) -> RankJob:
    check_count("texts", body.texts, _MAX_TEXTS)
    return RankJob(
        model=body.model or None,
        query=body.query,
        documents=tuple(body.texts),
        top_n=body.top_k,
        **overflow(body),
        raw_scores=bool(body.raw_scores),
    )


def _ranks(body: RerankRequest, _: RankJob, done: Ranked) -> list[Rank]:
    return [
        Rank(result.index, result.score, body.texts[result.index] if body.return_text else UNSET)
        for result in done.results
    ]


def _classify_job(body: PredictRequest) -> ClassifyJob:
    return ClassifyJob(
        model=body.model or None,
        inputs=parse_sequences(body.inputs),
        raw_scores=bool(body.raw_scores) or _wants_logits(body.parameters or LabelParameters()),
        **overflow(body),
    )


def _wants_logits(parameters: LabelParameters) -> bool:
    if parameters.top_k is not None and parameters.top_k < 1:
        raise InputError(f"`top_k` must be at least 1, not {parameters.top_k}")
    if parameters.function_to_apply not in {None, "none"}:
        # The checkpoint defines the activation of its logits; another one's results would not be probabilities.
        raise InputError("`function_to_apply` must be `none`, or absent for the activation the model was trained with")
    return parameters.function_to_apply == "none"


def _predictions(body: PredictRequest, _: ClassifyJob, done: Classified) -> list[LabelScore] | list[list[LabelScore]]:
    top_k = body.parameters.top_k if body.parameters else None
    best = [labels[:top_k] for labels in sorted_labels(done)]
    return best[0] if is_single(body.inputs) and body.parameters is None else best


_RERANK = RouteDocs(
    summary="Rank texts by relevance to a query",
    answers=("scores",),
    body=RerankRequest,
    reply=list[Rank],
    example={"query": "Where is the cat?", "texts": ["Bananas are yellow.", "The cat sat on the mat."]},
    headers=HEADERS,
)
RERANK = Endpoint(_RERANK, _rank_job, Service.rank, _ranks, headers=compute_headers)
_PREDICT = RouteDocs(
    summary="Classify texts or pairs of texts",
    answers=("scores",),
    body=PredictRequest,
    reply=(list[LabelScore], list[list[LabelScore]]),
    example={"inputs": "I like you."},
    examples={"several": {"inputs": [["I like you."], ["I like you.", "I do not."]], "raw_scores": True}},
    headers=HEADERS,
)
PREDICT = Endpoint(_PREDICT, _classify_job, Service.classify, _predictions, headers=compute_headers)
