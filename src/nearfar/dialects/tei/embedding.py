"""Texts → a vector each, one for each of their tokens, sparse weights, or how alike they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nearfar.core.errors import EmptyInput
from nearfar.core.jobs import EmbedJob, RepresentJob
from nearfar.dialects.kit.base import service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.rendering import encode_json, numbers, numbers_each, render_reply
from nearfar.dialects.tei.answering import Answered, count
from nearfar.dialects.tei.bodies import Parameters, SparseValue
from nearfar.dialects.tei.inputs import inputs_of, keep_of, overflow_of, refuse_many

if TYPE_CHECKING:
    from nearfar.core.jobs import Embedded, Represented, Scored
    from nearfar.core.types import Output, TokenIds, Weights
    from nearfar.dialects.kit.base import AnyRequest
    from nearfar.dialects.tei.bodies import EmbedAllRequest, EmbedRequest, SimilarityRequest


async def embed(request: AnyRequest, body: EmbedRequest) -> Answered:
    """Give a vector a text."""
    inputs = inputs_of(body.inputs)
    job = EmbedJob(
        model=body.model or None,
        inputs=inputs,
        vocabulary=None,
        normalize=body.normalize is not False,
        dimensions=body.dimensions,
        prompt=body.prompt_name,
        keep=keep_of(body.truncation_direction),
        on_overflow=overflow_of(truncate=body.truncate),
    )
    done = await service_of(request).embed(job, caller_of(request.scope))
    encoded = await render_reply(done.vectors, "float", lambda rows: rows)
    return _answered(encoded, inputs, done)


async def embed_all(request: AnyRequest, body: EmbedAllRequest) -> Answered:
    """Give a vector for each token, (n, M) a text: the model's own for those that count, or what it pools."""
    inputs = inputs_of(body.inputs)
    done = await service_of(request).token_vectors(_job(body, inputs), caller_of(request.scope))
    vectors = [one.multi_vector for one in done.texts if one.multi_vector is not None]
    encoded = await encode_json(sum(one.size for one in vectors), lambda: [numbers(one) for one in vectors])
    return _answered(encoded, inputs, done)


async def embed_sparse(request: AnyRequest, body: EmbedAllRequest) -> Answered:
    """Give the weights above 0, an index into the vocabulary with each."""
    inputs = inputs_of(body.inputs)
    done = await service_of(request).represent(_job(body, inputs, "sparse"), caller_of(request.scope))
    weights = [one.sparse for one in done.texts if one.sparse is not None]
    size = 10 * sum(len(one.indices) for one in weights)  # objects take about ten times as long as bare numbers
    encoded = await encode_json(size, lambda: [_pairs(one) for one in weights])
    return _answered(encoded, inputs, done)


async def similarity(request: AnyRequest, body: SimilarityRequest) -> Answered:
    """Give the cosine of a text with each of the others."""
    if not body.inputs.sentences:
        raise EmptyInput("`inputs.sentences` cannot be empty")
    how = body.parameters or Parameters()
    inputs = (body.inputs.source_sentence, *body.inputs.sentences)
    refuse_many("inputs.sentences", len(inputs))
    job = EmbedJob(
        model=body.model or None,
        inputs=inputs,
        prompt=how.prompt_name,
        keep=keep_of(how.truncation_direction),
        on_overflow=overflow_of(truncate=how.truncate),
    )
    done = await service_of(request).similarity(job, caller_of(request.scope))
    encoded = msgspec.json.encode(done.scores)
    return _answered(encoded, inputs, done)


def _job(body: EmbedAllRequest, inputs: tuple[str | TokenIds, ...], *outputs: Output) -> RepresentJob:
    return RepresentJob(
        model=body.model or None,
        inputs=inputs,
        outputs=outputs,
        role="query" if body.prompt_name == "query" else None,
        prompt=body.prompt_name,
        keep=keep_of(body.truncation_direction),
        on_overflow=overflow_of(truncate=body.truncate),
    )


def _pairs(weights: Weights) -> list[SparseValue]:
    both = zip(weights.indices.tolist(), numbers_each(weights.values), strict=True)
    return [SparseValue(index, value) for index, value in both]


def _answered(body: bytes, inputs: tuple[str | TokenIds, ...], done: Embedded | Represented | Scored) -> Answered:
    return Answered(
        body=body,
        model=done.model,
        rows=len(inputs),
        characters=count(inputs),
        usage=done.usage,
        timings=done.timings,
    )
