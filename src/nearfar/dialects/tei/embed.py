"""TEI's embeddings: a vector for each text, a vector for each token, sparse vectors, and similarities."""

from __future__ import annotations

import msgspec

from nearfar.core.errors import EmptyInput
from nearfar.core.jobs import EmbedJob, Represented, RepresentJob
from nearfar.core.types import Output, SparseVector
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import render_array, render_each, render_rows
from nearfar.dialects.kit.route_docs import RouteDocs, RowsOfNumbers
from nearfar.dialects.tei.bodies import EmbedAllRequest, EmbedRequest, Parameters, SimilarityRequest, SparseValue
from nearfar.dialects.tei.headers import HEADERS, compute_headers
from nearfar.dialects.tei.inputs import check_count, overflow, parse_inputs
from nearfar.serving.service import Service


def _embed_job(body: EmbedRequest) -> EmbedJob:
    return EmbedJob(
        model=body.model or None,
        inputs=parse_inputs(body.inputs),
        vocabulary=None,
        normalize=body.normalize is not False,
        dimensions=body.dimensions,
        prompt=body.prompt_name,
        **overflow(body),
    )


def _represent_job(body: EmbedAllRequest, *outputs: Output) -> RepresentJob:
    return RepresentJob(
        model=body.model or None,
        inputs=parse_inputs(body.inputs),
        outputs=outputs,
        role="query" if body.prompt_name == "query" else None,
        prompt=body.prompt_name,
        **overflow(body),
    )


def _sparse_job(body: EmbedAllRequest) -> RepresentJob:
    return _represent_job(body, "sparse")


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
        **overflow(options),
    )


def _token_vectors(_: EmbedAllRequest, __: RepresentJob, done: Represented) -> list[msgspec.Raw]:
    return [render_array(text.multi_vector) for text in done.texts if text.multi_vector is not None]


def _sparse_vectors(_: EmbedAllRequest, __: RepresentJob, done: Represented) -> list[msgspec.Raw]:
    return [_sparse_values(text.sparse) for text in done.texts if text.sparse is not None]


def _sparse_values(vector: SparseVector) -> msgspec.Raw:
    """Render a vector as SparseValues. An object for each would take ten times the memory."""
    pairs = zip(vector.indices.tolist(), render_each(vector.values), strict=True)
    return msgspec.Raw(b"[%b]" % b",".join([b'{"index":%d,"value":%b}' % pair for pair in pairs]))


_EMBED = RouteDocs(
    summary="Embed texts",
    answers=("vectors",),
    body=EmbedRequest,
    reply=RowsOfNumbers,
    example={"inputs": ["a cat on the sofa", "stock prices fell"]},
    examples={
        "everything": {
            "inputs": "a cat on the sofa",
            "truncate": True,
            "truncation_direction": "Right",
            "prompt_name": "query",
            "normalize": True,
            "dimensions": 128,
        },
        "token ids": {"inputs": [[101, 1037, 4937, 102]]},
    },
    headers=HEADERS,
)
EMBED = Endpoint(_EMBED, _embed_job, Service.embed, lambda _, __, done: render_rows(done), headers=compute_headers)
_EMBED_ALL = RouteDocs(
    summary="Embed each token of texts",
    answers=("vectors",),
    body=EmbedAllRequest,
    reply=list[RowsOfNumbers],
    example={"inputs": "a cat"},
    headers=HEADERS,
)
EMBED_ALL = Endpoint(_EMBED_ALL, _represent_job, Service.token_vectors, _token_vectors, headers=compute_headers)
_EMBED_SPARSE = RouteDocs(
    summary="Embed texts as sparse vectors",
    answers=("vectors",),
    body=EmbedAllRequest,
    reply=list[list[SparseValue]],
    example={"inputs": "a cat"},
    headers=HEADERS,
)
EMBED_SPARSE = Endpoint(_EMBED_SPARSE, _sparse_job, Service.represent, _sparse_vectors, headers=compute_headers)
_SIMILARITY = RouteDocs(
    summary="Compare texts with one text",
    answers=("scores",),
    body=SimilarityRequest,
    reply=list[float],
    example={"inputs": {"source_sentence": "a cat on the sofa", "sentences": ["the cat sat on the mat", "rates rose"]}},
    reply_example=[0.629, -0.007],
    headers=HEADERS,
)
SIMILARITY = Endpoint(
    _SIMILARITY, _similarity_job, Service.similarity, lambda _, __, done: done.scores, headers=compute_headers
)
