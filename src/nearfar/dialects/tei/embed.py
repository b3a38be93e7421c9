"""TEI's embeddings: a vector for each text, a vector for each token, sparse vectors, and similarities."""

from __future__ import annotations

import msgspec

from nearfar.core.errors import EmptyInput
from nearfar.core.jobs import EmbedJob, Represented, RepresentJob
from nearfar.core.types import Output, SparseVector
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import render_array, render_each, render_rows
from nearfar.dialects.tei import route_docs
from nearfar.dialects.tei.bodies import EmbedAllRequest, EmbedRequest, Parameters, SimilarityRequest, SparseValue
from nearfar.dialects.tei.headers import compute_headers
from nearfar.dialects.tei.inputs import check_count, kept_side, on_overflow, parse_inputs
from nearfar.serving.service import Service


def _embed_job(body: EmbedRequest) -> EmbedJob:
    return EmbedJob(
        model=body.model or None,
        inputs=parse_inputs(body.inputs),
        vocabulary=None,
        normalize=body.normalize is not False,
        dimensions=body.dimensions,
        prompt=body.prompt_name,
        keep=kept_side(body.truncation_direction),
        on_overflow=on_overflow(truncate=body.truncate),
    )


def _represent_job(body: EmbedAllRequest, *outputs: Output) -> RepresentJob:
    return RepresentJob(
        model=body.model or None,
        inputs=parse_inputs(body.inputs),
        outputs=outputs,
        role="query" if body.prompt_name == "query" else None,
        prompt=body.prompt_name,
        keep=kept_side(body.truncation_direction),
        on_overflow=on_overflow(truncate=body.truncate),
    )


def _similarity_job(body: SimilarityRequest) -> EmbedJob:
    if not body.inputs.sentences:
        raise EmptyInput("`inputs.sentences` cannot be empty")
    options = body.parameters or Parameters()
    inputs = (body.inputs.source_sentence, *body.inputs.sentences)
    check_count("inputs.sentences", inputs)
    return EmbedJob(
        model=body.model or None,
        inputs=inputs,
        prompt=options.prompt_name,
        keep=kept_side(options.truncation_direction),
        on_overflow=on_overflow(truncate=options.truncate),
    )


def _token_vectors(_: EmbedAllRequest, __: RepresentJob, done: Represented) -> list[msgspec.Raw]:
    return [render_array(text.multi_vector) for text in done.texts if text.multi_vector is not None]


def _sparse_vectors(_: EmbedAllRequest, __: RepresentJob, done: Represented) -> list[list[SparseValue]]:
    return [_sparse_values(text.sparse) for text in done.texts if text.sparse is not None]


def _sparse_values(vector: SparseVector) -> list[SparseValue]:
    pairs = zip(vector.indices.tolist(), render_each(vector.values), strict=True)
    return [SparseValue(index, value) for index, value in pairs]


EMBED = Endpoint(
    docs=route_docs.EMBED,
    decoder=msgspec.json.Decoder(EmbedRequest),
    to_job=_embed_job,
    call=Service.embed,
    reply=lambda _, __, done: render_rows(done),
    headers=compute_headers,
)
EMBED_ALL = Endpoint(
    docs=route_docs.EMBED_ALL,
    decoder=msgspec.json.Decoder(EmbedAllRequest),
    to_job=_represent_job,
    call=Service.token_vectors,
    reply=_token_vectors,
    headers=compute_headers,
)
EMBED_SPARSE = Endpoint(
    docs=route_docs.EMBED_SPARSE,
    decoder=msgspec.json.Decoder(EmbedAllRequest),
    to_job=lambda body: _represent_job(body, "sparse"),
    call=Service.represent,
    reply=_sparse_vectors,
    headers=compute_headers,
)
SIMILARITY = Endpoint(
    docs=route_docs.SIMILARITY,
    decoder=msgspec.json.Decoder(SimilarityRequest),
    to_job=_similarity_job,
    call=Service.similarity,
    reply=lambda _, __, done: done.scores,
    headers=compute_headers,
)
