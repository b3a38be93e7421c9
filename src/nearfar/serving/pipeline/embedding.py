"""Computes the vectors of a job: the engine's own, or ones pooled here from hidden states."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from nearfar.core.jobs import Embedded, EmbedJob
from nearfar.core.types import FloatArray
from nearfar.models.tokenization.prompts import choose_prompt
from nearfar.models.tokenization.row import Row, row_ids
from nearfar.serving.access import RequestContext
from nearfar.serving.offload import offload
from nearfar.serving.pipeline.encoding import TokenizerPool, encode_chunks, encode_texts, takes_prompt, usage_of
from nearfar.serving.pipeline.limits import apply_limits, check_job, check_vectors, count_characters
from nearfar.serving.postprocess.pooling import normalize, pool
from nearfar.serving.postprocess.quantization import default_range, scale_range
from nearfar.serving.registry.opening import Model

# Hidden states in memory at once, in tokens, if the job doesn't need all: 64 MB of 1,024 numbers each.
_MAX_STATES = 16_384


async def embed(job: EmbedJob, tokenizers: TokenizerPool, context: RequestContext) -> Embedded:
    """Compute a vector for each of the job's inputs."""
    model, recipe = context.model, context.model.recipe
    check_job(job)
    job = apply_limits(model, job)
    check_vectors(recipe, job)
    context.check_answer(len(job.inputs) * min(job.dimensions or model.info.dim, model.info.dim))
    prompt, name = "", context.prompt_name or job.prompt
    if takes_prompt(job, name) and (name or job.role or job.instruction is not None or recipe.default_prompt):
        prompt = choose_prompt(recipe, name, job.role, job.instruction)
    size = count_characters(job.inputs)
    if job.late_chunking:
        row, spans = await tokenizers.run(size, partial(encode_chunks, model, job, prompt))
        rows = [row]
        vectors = await _pool_spans(context, row, spans)
    else:
        alone = model.lane.admission.requests == 0
        rows = await tokenizers.run(size, partial(encode_texts, model, job, prompt), alone=alone)
        filled = [*filter(row_ids, rows)]
        # The engine's vectors are normalized, so vectors that are not have to be pooled here.
        pools_here = recipe.normalize and job.normalize is False
        vectors = await (_pool_rows(context, filled) if pools_here else context.submit(filled))
    return await offload(vectors.size, partial(_embedded, context, job, rows, vectors))


def _embedded(context: RequestContext, job: EmbedJob, rows: Sequence[Row], vectors: FloatArray) -> Embedded:
    """Normalize and cut the vectors as the job asks for."""
    model, recipe = context.model, context.model.recipe
    is_unit = recipe.normalize if job.normalize is None else job.normalize
    if is_unit and (job.late_chunking or not recipe.normalize):
        vectors = normalize(vectors)
    if job.dimensions is not None and job.dimensions < recipe.dim:
        vectors = vectors[:, : job.dimensions]
        if is_unit:
            vectors = normalize(vectors, f"the first {job.dimensions} components of a vector")
    if len(vectors) < len(rows) and not job.late_chunking:
        vectors = _with_zeros(vectors, rows)
    return Embedded(
        info=model.info,
        inputs=len(job.inputs),
        vectors=np.ascontiguousarray(vectors),
        usage=usage_of(rows),
        timings=context.stopwatch.timings(),
        int8_range=_int8_range(model, job, is_unit=is_unit),
    )


def _with_zeros(vectors: FloatArray, rows: Sequence[Row]) -> FloatArray:
    """Return a vector for each row: zeros where it has no tokens, as in sentence-transformers."""
    every = np.zeros((len(rows), vectors.shape[1]), np.float32)
    every[[bool(row.ids) for row in rows]] = vectors
    return every


def _int8_range(model: Model, job: EmbedJob, *, is_unit: bool) -> float | None:
    """Return the quantization range of the job's vectors. The model's own is of vectors with its own length."""
    recipe = model.recipe
    if is_unit == recipe.normalize:
        int8_range = model.info.int8_range
    else:
        int8_range = default_range(recipe.dim) if is_unit else None
    if int8_range is None or job.dimensions is None or not is_unit:
        return int8_range
    return scale_range(int8_range, recipe.dim, job.dimensions)


async def _pool_spans(context: RequestContext, row: Row, spans: Sequence[tuple[int, int]]) -> FloatArray:
    """Mean-pool the hidden states (T, H) of one row over each span; return (B, H)."""
    [states] = await context.submit([row], "hidden_states")
    return await asyncio.to_thread(lambda: np.stack([pool(states[start:stop], ["mean"]) for start, stop in spans]))


async def _pool_rows(context: RequestContext, rows: Sequence[Row]) -> FloatArray:
    """Pool the hidden states of each row; return (B, D). Equal rows are pooled once."""
    modes = context.model.recipe.pooling
    distinct = {id(row): row for row in rows}
    pooled: list[FloatArray] = []
    for part in _split([*distinct.values()]):
        states = await context.submit(part, "hidden_states")
        kept = [each[row.unpooled :] for each, row in zip(states, part, strict=True)]
        pooled += await asyncio.to_thread(lambda: [pool(each, modes) for each in kept])  # noqa: B023 — awaited here
    vectors = dict(zip(distinct, pooled, strict=True))
    return np.stack([vectors[id(row)] for row in rows])


def _split(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Split the rows into parts of at most ``_MAX_STATES`` tokens, or of one row."""
    part: list[Row] = []
    tokens = 0
    for row in rows:
        if part and tokens + len(row.ids) > _MAX_STATES:
            yield part
            part, tokens = [], 0
        part.append(row)
        tokens += len(row.ids)
    yield part
