"""A query and texts → their order; texts and pairs → their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import ClassifyJob, RankJob
from nearfar.dialects.kit.base import service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.tei.answering import Answered, count
from nearfar.dialects.tei.bodies import LabelParameters, Prediction, Rank
from nearfar.dialects.tei.inputs import keep_of, overflow_of, refuse_many, sequences_of

if TYPE_CHECKING:
    from nearfar.core.jobs import Classified
    from nearfar.dialects.kit.base import AnyRequest
    from nearfar.dialects.tei.bodies import PredictRequest, RerankRequest

MOST_TEXTS = 10_000  # as many as Cohere takes


async def rerank(request: AnyRequest, body: RerankRequest) -> Answered:
    """Give each text's score, the best first."""
    if not body.texts:
        raise EmptyInput("`texts` cannot be empty")
    refuse_many("texts", len(body.texts), MOST_TEXTS)
    job = RankJob(
        model=body.model or None,
        query=body.query,
        documents=tuple(body.texts),
        top_n=body.top_k,
        keep=keep_of(body.truncation_direction),
        on_overflow=overflow_of(truncate=body.truncate),
        raw_scores=bool(body.raw_scores),
    )
    done = await service_of(request).rank(job, caller_of(request.scope))
    ranks = [
        Rank(found.index, found.score, body.texts[found.index] if body.return_text else UNSET) for found in done.results
    ]
    return Answered(
        body=msgspec.json.encode(ranks),
        model=done.model,
        rows=len(body.texts),
        characters=len(body.texts) * len(body.query) + count(body.texts),
        usage=done.usage,
        timings=done.timings,
    )


async def predict(request: AnyRequest, body: PredictRequest) -> Answered:
    """Give every label of each text with its score, the likeliest first."""
    inputs, single = sequences_of(body.inputs)
    how = body.parameters or LabelParameters()
    job = ClassifyJob(
        model=body.model or None,
        inputs=inputs,
        raw_scores=bool(body.raw_scores) or _wants_logits(how),
        keep=keep_of(body.truncation_direction),
        on_overflow=overflow_of(truncate=body.truncate),
    )
    done = await service_of(request).classify(job, caller_of(request.scope))
    found = [row[: how.top_k] for row in _predictions(done)]
    bare = single and body.parameters is None
    return Answered(
        body=msgspec.json.encode(found[0] if bare else found),
        model=done.model,
        rows=len(inputs),
        characters=count(inputs),
        usage=done.usage,
        timings=done.timings,
    )


def _wants_logits(how: LabelParameters) -> bool:
    if how.top_k is not None and how.top_k < 1:
        raise InputError(f"`top_k` must be at least 1, not {how.top_k}")
    if how.function_to_apply not in {None, "none"}:
        # The model's files say which of the two gives its probabilities; the other's numbers would mean nothing.
        raise InputError("`function_to_apply` must be `none`, or left out for the function the model was trained with")
    return how.function_to_apply == "none"


def _predictions(done: Classified) -> list[list[Prediction]]:
    """Put each text's labels in order; those with equal scores stay in the model's."""
    labels = done.labels or ("LABEL_0",)
    rows = [zip(scores.tolist(), labels, strict=True) for scores in done.scores]
    return [sorted((Prediction(*pair) for pair in row), key=lambda found: -found.score) for row in rows]
