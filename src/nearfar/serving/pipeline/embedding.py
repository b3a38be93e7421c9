"""Texts → vectors: from the engine as they are, or from hidden states where a request wants others than it gives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from nearfar.core.errors import EmptyInput, InputError, InvalidDimensions
from nearfar.models.tokenization.row import Row
from nearfar.serving.pipeline.encoding import rows_of_chunks, rows_of_texts
from nearfar.serving.postprocess.pooling import normalize, pool
from nearfar.serving.postprocess.quantization import default_range, range_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nearfar.core.jobs import EmbedJob
    from nearfar.core.types import FloatArray
    from nearfar.models.recipe.recipe import Recipe
    from nearfar.serving.access import RequestContext
    from nearfar.serving.registry.opening import Model

# Tokens of which hidden states are held at once, of a request that doesn't keep them: 64 MB of 1,024 numbers each.
_MOST_STATES = 16_384


class Laid(Struct, frozen=True, kw_only=True):
    """A job's rows; or one row of all its inputs, with where each lies in it."""

    rows: list[Row]
    spans: list[tuple[int, int]] | None = None


def refuse_unembeddable(recipe: Recipe, job: EmbedJob) -> None:
    """Refuse a job without texts, or for vectors that can't be made of this model's."""
    if not job.inputs:
        raise EmptyInput("there is nothing to embed")
    if job.dimensions is not None and not 1 <= job.dimensions <= recipe.dim:
        raise InvalidDimensions(job.dimensions, recipe.dim)
    layers = "this model has linear layers after pooling, which only run as a whole, up to its vectors"
    if job.late_chunking:
        if recipe.pooling != ("mean",):
            way = " and ".join(recipe.pooling)
            raise InputError(f"late chunking needs a model pooled by the mean, and this one is pooled by {way}")
        if recipe.dense:
            raise InputError(f"{layers}; late chunking needs a model without")
    if _wants_raw(recipe, job) and recipe.dense:
        raise InputError(f"{layers} of unit length; leave out that they should not be normalised")


def lay(model: Model, job: EmbedJob, prompt: str) -> Laid:
    """Tokenise a job."""
    if not job.late_chunking:
        return Laid(rows=rows_of_texts(model, job, prompt))
    row, spans = rows_of_chunks(model, job, prompt)
    return Laid(rows=[row], spans=spans)


async def embed(context: RequestContext, job: EmbedJob, laid: Laid) -> FloatArray:
    """Give (B, D) vectors as the job wants them."""
    recipe = context.model.recipe
    if laid.spans:
        [states] = await context.submit(laid.rows, "hidden_states")
        vectors = await asyncio.to_thread(_of_spans, states, laid.spans)
    elif _wants_raw(recipe, job):
        vectors = await _raw(context, laid.rows)
    else:
        vectors = await context.submit(laid.rows)
    if _is_unit(recipe, job) and (laid.spans or not recipe.normalize):
        vectors = normalize(vectors)
    if job.dimensions is not None and job.dimensions < recipe.dim:
        vectors = vectors[:, : job.dimensions]
        if _is_unit(recipe, job):
            vectors = normalize(vectors, f"the first {job.dimensions} components of a vector")
    return np.ascontiguousarray(vectors)


def int8_range_of(model: Model, job: EmbedJob) -> float | None:
    """Give the R of the job's vectors. What the model's own is tells nothing of vectors of another length."""
    recipe, dimensions = model.recipe, job.dimensions or model.recipe.dim
    if _is_unit(recipe, job) == recipe.normalize:
        return range_at(model.info.int8_range, recipe.dim, dimensions, unit=recipe.normalize)
    return range_at(default_range(recipe.dim), recipe.dim, dimensions, unit=True) if job.normalize else None


def _is_unit(recipe: Recipe, job: EmbedJob) -> bool:
    return recipe.normalize if job.normalize is None else job.normalize


def _wants_raw(recipe: Recipe, job: EmbedJob) -> bool:
    """Tell whether the engine's own vectors are of unit length and those before that are wanted."""
    return recipe.normalize and job.normalize is False and not job.late_chunking


async def _raw(context: RequestContext, rows: Sequence[Row]) -> FloatArray:
    """Pool hidden states, of so many rows at once as are held easily. Equal rows are pooled once."""
    distinct = {id(row): row for row in rows}
    found: list[FloatArray] = []
    for part in _parts([*distinct.values()]):
        states = await context.submit(part, "hidden_states")
        found += await asyncio.to_thread(lambda: [pool(one, context.model.recipe.pooling) for one in states])  # noqa: B023 — awaited here
    vectors = dict(zip(distinct, found, strict=True))
    return np.stack([vectors[id(row)] for row in rows])


def _parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    tokens = 0
    for row in rows:
        if part and tokens + len(row.ids) > _MOST_STATES:
            yield part
            part, tokens = [], 0
        part.append(row)
        tokens += len(row.ids)
    yield part


def _of_spans(states: FloatArray, spans: Sequence[tuple[int, int]]) -> FloatArray:
    return np.stack([pool(states[start:stop], ["mean"]) for start, stop in spans])
