"""TEI's ranking of texts against a query, and its classification of texts and pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from nearfar.core.errors import InputError
from nearfar.core.jobs import ClassifyJob, RankJob
from nearfar.dialects.kit.request import caller_of, service_of
from nearfar.dialects.tei.answers import Answer, count_characters
from nearfar.dialects.tei.bodies import LabelParameters, Prediction, Rank
from nearfar.dialects.tei.inputs import check_count, kept_side, on_overflow, parse_sequences

if TYPE_CHECKING:
    from nearfar.core.jobs import Classified
    from nearfar.dialects.kit.request import AnyRequest
    from nearfar.dialects.tei.bodies import PredictRequest, RerankRequest

_MAX_TEXTS = 10_000  # as in Cohere's protocol


async def rerank(request: AnyRequest, body: RerankRequest) -> Answer:
    """Score each text, best first."""
    check_count("texts", body.texts, _MAX_TEXTS)
    job = RankJob(
        model=body.model or None,
        query=body.query,
        documents=tuple(body.texts),
        top_n=body.top_k,
        keep=kept_side(body.truncation_direction),
        on_overflow=on_overflow(truncate=body.truncate),
        raw_scores=bool(body.raw_scores),
    )
    done = await service_of(request).rank(job, caller_of(request.scope))
    ranks = [
        Rank(result.index, result.score, body.texts[result.index] if body.return_text else UNSET)
        for result in done.results
    ]
    characters = len(body.texts) * len(body.query) + count_characters(body.texts)
    return Answer.of(msgspec.json.encode(ranks), done, len(body.texts), characters)


async def predict(request: AnyRequest, body: PredictRequest) -> Answer:
    """Score every label of each text, the most probable first."""
    inputs, is_single = parse_sequences(body.inputs)
    parameters = body.parameters or LabelParameters()
    job = ClassifyJob(
        model=body.model or None,
        inputs=inputs,
        raw_scores=bool(body.raw_scores) or _wants_logits(parameters),
        keep=kept_side(body.truncation_direction),
        on_overflow=on_overflow(truncate=body.truncate),
    )
    done = await service_of(request).classify(job, caller_of(request.scope))
    predictions = [row[: parameters.top_k] for row in _predictions(done)]
    is_bare = is_single and body.parameters is None
    encoded = msgspec.json.encode(predictions[0] if is_bare else predictions)
    return Answer.of(encoded, done, len(inputs), count_characters(inputs))


def _wants_logits(parameters: LabelParameters) -> bool:
    if parameters.top_k is not None and parameters.top_k < 1:
        raise InputError(f"`top_k` must be at least 1, not {parameters.top_k}")
    if parameters.function_to_apply not in {None, "none"}:
        # The checkpoint defines the activation of its logits; another one's results would not be probabilities.
        raise InputError("`function_to_apply` must be `none`, or absent for the activation the model was trained with")
    return parameters.function_to_apply == "none"


def _predictions(done: Classified) -> list[list[Prediction]]:
    """Sort each text's labels by score; equal scores keep the model's order."""
    labels = done.labels or ("LABEL_0",)
    rows = [zip(scores.tolist(), labels, strict=True) for scores in done.scores]
    return [sorted((Prediction(*pair) for pair in row), key=lambda found: -found.score) for row in rows]
