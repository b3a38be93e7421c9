"""TEI's embeddings: a vector for each text, a vector for each token, sparse vectors, and similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nearfar.core.errors import EmptyInput
from nearfar.core.jobs import EmbedJob, RepresentJob
from nearfar.dialects.kit.rendering import encode_json, numbers, numbers_each, render_reply
from nearfar.dialects.kit.request import caller_of, service_of
from nearfar.dialects.tei.answers import Answer, count_characters
from nearfar.dialects.tei.bodies import Parameters, SparseValue
from nearfar.dialects.tei.inputs import check_count, kept_side, on_overflow, parse_inputs

if TYPE_CHECKING:
    from nearfar.core.types import Output, SparseVector, TokenIds
    from nearfar.dialects.kit.request import AnyRequest
    from nearfar.dialects.tei.bodies import EmbedAllRequest, EmbedRequest, SimilarityRequest


async def embed(request: AnyRequest, body: EmbedRequest) -> Answer:
    """Embed each text."""
    inputs = parse_inputs(body.inputs)
    job = EmbedJob(
        model=body.model or None,
        inputs=inputs,
        vocabulary=None,
        normalize=body.normalize is not False,
        dimensions=body.dimensions,
        prompt=body.prompt_name,
        keep=kept_side(body.truncation_direction),
        on_overflow=on_overflow(truncate=body.truncate),
    )
    done = await service_of(request).embed(job, caller_of(request.scope))
    encoded = await render_reply(done.vectors, "float", lambda rows: rows)
    return Answer.of(encoded, done, len(inputs), count_characters(inputs))


async def embed_all(request: AnyRequest, body: EmbedAllRequest) -> Answer:
    """Embed each token, (n, M) a text: a multi-vector model's own vectors, or else the last hidden states."""
    inputs = parse_inputs(body.inputs)
    done = await service_of(request).token_vectors(_represent_job(body, inputs), caller_of(request.scope))
    vectors = [one.multi_vector for one in done.texts if one.multi_vector is not None]
    encoded = await encode_json(sum(one.size for one in vectors), lambda: [numbers(one) for one in vectors])
    return Answer.of(encoded, done, len(inputs), count_characters(inputs))


async def embed_sparse(request: AnyRequest, body: EmbedAllRequest) -> Answer:
    """Embed each text as a sparse vector: the token ids with a weight above 0."""
    inputs = parse_inputs(body.inputs)
    done = await service_of(request).represent(_represent_job(body, inputs, "sparse"), caller_of(request.scope))
    weights = [one.sparse for one in done.texts if one.sparse is not None]
    size = 10 * sum(len(one.indices) for one in weights)  # an object takes about ten times as long as a number
    encoded = await encode_json(size, lambda: [_sparse_values(one) for one in weights])
    return Answer.of(encoded, done, len(inputs), count_characters(inputs))


async def similarity(request: AnyRequest, body: SimilarityRequest) -> Answer:
    """Compute the cosine of one text with each of the others."""
    if not body.inputs.sentences:
        raise EmptyInput("`inputs.sentences` cannot be empty")
    options = body.parameters or Parameters()
    inputs = (body.inputs.source_sentence, *body.inputs.sentences)
    check_count("inputs.sentences", inputs)
    job = EmbedJob(
        model=body.model or None,
        inputs=inputs,
        prompt=options.prompt_name,
        keep=kept_side(options.truncation_direction),
        on_overflow=on_overflow(truncate=options.truncate),
    )
    done = await service_of(request).similarity(job, caller_of(request.scope))
    return Answer.of(msgspec.json.encode(done.scores), done, len(inputs), count_characters(inputs))


def _represent_job(body: EmbedAllRequest, inputs: tuple[str | TokenIds, ...], *outputs: Output) -> RepresentJob:
    return RepresentJob(
        model=body.model or None,
        inputs=inputs,
        outputs=outputs,
        role="query" if body.prompt_name == "query" else None,
        prompt=body.prompt_name,
        keep=kept_side(body.truncation_direction),
        on_overflow=on_overflow(truncate=body.truncate),
    )


def _sparse_values(weights: SparseVector) -> list[SparseValue]:
    pairs = zip(weights.indices.tolist(), numbers_each(weights.values), strict=True)
    return [SparseValue(index, value) for index, value in pairs]
