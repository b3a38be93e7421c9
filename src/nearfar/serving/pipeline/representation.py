"""Computes a job's other outputs: sparse vectors, vectors for each token, and classifiers' labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from nearfar.core.jobs import Classified, ClassifyJob, Represented, RepresentJob
from nearfar.core.types import Representation
from nearfar.models.recipe.recipe import Recipe, Sparse
from nearfar.models.tokenization.prompts import choose_prompt
from nearfar.models.tokenization.row import Row
from nearfar.serving.access import RequestContext
from nearfar.serving.offload import offload
from nearfar.serving.pipeline.encoding import TokenizerPool, encode_classified, encode_outputs, takes_prompt, usage_of
from nearfar.serving.pipeline.limits import check_job, check_outputs, count_characters
from nearfar.serving.postprocess.scores import probabilities
from nearfar.serving.queue.batch import Results

_WEIGHT = 32  # a text takes as long as so many numbers to render
_SPARSE_NUMBERS = 512  # of a text's sparse vector, indices and weights: a guess
_WEIGHT_BYTES = 36  # of a weight in JSON, with its index
_ROWS_AT_ONCE = 128  # of which any may have a weight for each token of the vocabulary: 31 MB for 30,522


async def represent(job: RepresentJob, tokenizers: TokenizerPool, context: RequestContext) -> Represented:
    """Compute every output of the model for each of the job's inputs, in one forward."""
    check_job(job)
    model = context.model
    check_outputs(model, job)
    name = context.prompt_name or job.prompt
    has_prompt = takes_prompt(job, name) or model.recipe.multi_vector  # its prompts are markers
    prompt = choose_prompt(model.recipe, name, job.role or "document") if has_prompt else ""
    rows = await tokenizers.run(count_characters(job.inputs), lambda: encode_outputs(model, job, prompt))
    context.check_answer(_numbers(model.recipe, rows))
    most = sum([_most_weights(model.recipe.sparse, row) for row in rows]) if model.recipe.sparse else 0
    if most * _WEIGHT_BYTES > context.max_answer_bytes:
        return _represented(context, rows, await _represent_parts(context, rows))
    texts = await context.submit(rows, "represent")
    return await offload(len(rows) * _WEIGHT, lambda: _represented(context, rows, texts.tolist()))


async def _represent_parts(context: RequestContext, rows: Sequence[Row]) -> list[Representation]:
    """Compute sparse vectors that may be too large for an answer, and count each part. Raises AnswerTooLarge."""
    times = Counter(map(id, rows))
    distinct = [*{id(row): row for row in rows}.values()]
    done: dict[int, Representation] = {}
    size = 0
    for at in range(0, len(distinct), _ROWS_AT_ONCE):
        part = distinct[at : at + _ROWS_AT_ONCE]
        for row, text in zip(part, (await context.submit(part, "represent")).tolist(), strict=True):
            done[id(row)] = text
            size += times[id(row)] * len(text.sparse.values) * _WEIGHT_BYTES
        context.check_size(size)
    return [done[id(row)] for row in rows]


async def token_vectors(job: RepresentJob, tokenizers: TokenizerPool, context: RequestContext) -> Represented:
    """Compute a vector for each token: the model's multi-vector output, or else its last hidden states."""
    model = context.model
    if model.recipe.multi_vector:
        return await represent(job, tokenizers, context)
    check_job(job)
    name = context.prompt_name or job.prompt
    prompt = choose_prompt(model.recipe, name, job.role) if takes_prompt(job, name) else ""
    rows = await tokenizers.run(count_characters(job.inputs), lambda: encode_outputs(model, job, prompt))
    context.check_answer(_tokens(rows) * model.recipe.hidden_size)
    states = await context.submit(rows, "hidden_states")
    return _represented(context, rows, [Representation(multi_vector=each) for each in states])


async def classify(job: ClassifyJob, tokenizers: TokenizerPool, context: RequestContext) -> Classified:
    """Score each of the job's inputs for each of the model's labels."""
    check_job(job)
    model = context.model
    rows = await tokenizers.run(_size_of(job), lambda: encode_classified(model, job))
    logits = await context.submit(rows)
    return await offload(logits.size * _WEIGHT, lambda: _classified(context, job, rows, logits))


def _classified(context: RequestContext, job: ClassifyJob, rows: Sequence[Row], logits: Results) -> Classified:
    model = context.model
    scores = logits if job.raw_scores else probabilities(model.recipe, logits)
    return Classified(
        info=model.info,
        inputs=len(job.inputs),
        scores=scores.reshape(len(rows), -1).astype(np.float32),  # (B,) → (B, 1)
        usage=usage_of(rows),
        timings=context.stopwatch.timings(),
    )


def _size_of(job: ClassifyJob) -> int:
    """Count the characters of texts and pairs, four for a token id."""
    size = 0
    for text in job.inputs:
        parts = text if isinstance(text, tuple) else (text,)
        size += sum(4 if isinstance(part, int) else len(part) for part in parts)
    return size


def _tokens(rows: Sequence[Row]) -> int:
    return sum([len(row.ids) for row in rows])


def _most_weights(sparse: Sparse, row: Row) -> int:
    return len(row.ids) if sparse.method == "lexical" else sparse.max_active or sparse.size


def _numbers(recipe: Recipe, rows: Sequence[Row]) -> int:
    """Return about how many numbers the model's outputs have."""
    numbers = len(rows) * (recipe.dim + (_SPARSE_NUMBERS if recipe.sparse else 0))
    if recipe.multi_vector:
        numbers += _tokens(rows) * recipe.multi_vector.dim(recipe.hidden_size)
    return numbers


def _represented(context: RequestContext, rows: Sequence[Row], texts: Sequence[Representation]) -> Represented:
    return Represented(
        info=context.model.info,
        inputs=len(texts),
        texts=tuple(map(_with_token_ids, texts, rows)),
        usage=usage_of(rows),
        timings=context.stopwatch.timings(),
    )


def _with_token_ids(text: Representation, row: Row) -> Representation:
    if text.multi_vector is None:
        return text
    ids = row.ids if row.vector_positions is None else [row.ids[at] for at in row.vector_positions]
    return msgspec.structs.replace(text, token_ids=tuple(ids))
