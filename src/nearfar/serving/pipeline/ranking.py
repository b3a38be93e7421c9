"""Scores documents against a query: encodes them, and computes scores from the engine's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, groupby

import msgspec
import numpy as np
from msgspec import Struct

from nearfar.core.errors import EmptyInput, InputError, TextTooLong
from nearfar.core.jobs import Ranked, RankedDocument, RankJob, Scored, ScoreJob
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.chunking import Chunking, TokenBudget
from nearfar.models.tokenization.prompts import choose_prompt
from nearfar.models.tokenization.row import Row
from nearfar.serving.access import RequestContext
from nearfar.serving.offload import offload
from nearfar.serving.pipeline.encoding import TokenizerPool, limit_rows, usage_of
from nearfar.serving.pipeline.limits import check_job, check_rows, count_characters
from nearfar.serving.postprocess import scores
from nearfar.serving.postprocess.scores import Scores
from nearfar.serving.queue.batch import Results
from nearfar.serving.registry.opening import Model

_WEIGHT = 32  # a score, or token vectors to compare, take as long as so many numbers to render
EncodeDocuments = Callable[[Sequence[str], int | None], list[Row]]


class EncodedJob(Struct, frozen=True, kw_only=True):
    """The rows of one query and its documents."""

    # The query's own row, unless the model reads pairs; then those of each document in order.
    rows: list[Row]
    # How many rows each document has: more than one if it is split into chunks.
    chunks: list[int]
    # Tokens of the query with each document, before truncation.
    tokens: list[int]


async def rank(job: RankJob, tokenizers: TokenizerPool, context: RequestContext) -> Ranked:
    """Score each document against the query and sort them: best first, equal scores in the job's order."""
    check_job(job)
    [encoded], results = await _run(context, tokenizers, [job])
    return await offload(results.size * _WEIGHT, lambda: _rank(context, job, encoded, results))


def _rank(context: RequestContext, job: RankJob, encoded: EncodedJob, results: Results) -> Ranked:
    raw, mapped = _compute_scores(context.model.recipe, [encoded], results)
    values = raw if job.raw_scores else mapped
    best = np.argsort(-values, kind="stable")[: job.top_n]
    return Ranked(
        info=context.model.info,
        inputs=len(job.documents),
        results=tuple(map(RankedDocument, best.tolist(), values[best].tolist())),
        document_tokens=tuple(encoded.tokens),
        usage=usage_of(encoded.rows),
        timings=context.stopwatch.timings(),
    )


async def score(job: ScoreJob, tokenizers: TokenizerPool, context: RequestContext) -> Scored:
    """Score the two texts of each pair."""
    check_job(job)
    encoded, results = await _run(context, tokenizers, _group_by_query(job))
    return await offload(results.size * _WEIGHT, lambda: _scored(context, job, encoded, results))


def _scored(context: RequestContext, job: ScoreJob, encoded: Sequence[EncodedJob], results: Results) -> Scored:
    raw, mapped = _compute_scores(context.model.recipe, encoded, results)
    values = mapped if context.model.recipe.task == "score" and not job.raw_scores else raw
    return Scored(
        info=context.model.info,
        inputs=len(job.pairs),
        scores=tuple(values.tolist()),
        usage=usage_of(_all_rows(encoded)),
        timings=context.stopwatch.timings(),
    )


async def _run(
    context: RequestContext, tokenizers: TokenizerPool, jobs: Sequence[RankJob]
) -> tuple[list[EncodedJob], Results]:
    """Run the documents of all jobs, each with or beside its job's query; return the engine's result for each row."""
    model = context.model
    size = sum([len(job.query) + count_characters(job.documents) for job in jobs])
    encoded = await tokenizers.run(size, lambda: [encode_job(model, job) for job in jobs])
    return encoded, await context.submit(_all_rows(encoded))


def _group_by_query(job: ScoreJob) -> list[RankJob]:
    """Group neighboring pairs with the same query, so that it is encoded once."""
    return [
        RankJob(
            model=job.model,
            query=query,
            documents=tuple(document for _, document in pairs),
            max_tokens_per_document=job.max_tokens_per_document,
            max_tokens_per_query=job.max_tokens_per_query,
            max_row_tokens=job.max_row_tokens,
            keep=job.keep,
            on_overflow=job.on_overflow,
        )
        for query, pairs in groupby(job.pairs, key=lambda pair: pair[0])
    ]


def encode_job(model: Model, job: RankJob) -> EncodedJob:
    """Encode a job. Long documents are truncated whatever the model's ``on_overflow`` is; the job's applies."""
    reads_pairs = model.recipe.task == "score"
    model = limit_rows(model, job.max_row_tokens, pairs=reads_pairs)
    if job.max_tokens_per_query is None:
        return _encode_pairs(model, job) if reads_pairs else _encode_separately(model, job)
    budget = model.encoder.budget_after_prompt("")
    cut = model.encoder.chunk(job.query, budget, Chunking(max_tokens=job.max_tokens_per_query))
    if cut.truncated_tokens and job.on_overflow == "error":
        raise _query_error(cut.token_count, cut.token_count - cut.truncated_tokens)
    shorter = encode_job(model, msgspec.structs.replace(job, query=cut.texts[0], max_tokens_per_query=None))
    first, *others = shorter.rows
    first = msgspec.structs.replace(first, truncated_tokens=first.truncated_tokens + cut.truncated_tokens)
    return msgspec.structs.replace(shorter, rows=[first, *others])


def _query_error(tokens: int, limit: int) -> InputError:
    return InputError(f"the query has {tokens} tokens; at most {limit} fit", "query")


def _encode_pairs(model: Model, job: RankJob) -> EncodedJob:
    def encode(documents: Sequence[str], max_tokens: int | None) -> list[Row]:
        return model.encoder.encode_pairs(job.query, documents, max_tokens, job.instruction)

    whole = encode(job.documents, job.max_tokens_per_document)
    _check_tokens("the query and document {} have", whole)
    each = _split_long(model, job, whole, encode, lambda: model.encoder.budget_beside_query(job.query, job.instruction))
    return EncodedJob(
        rows=[row for rows in each for row in rows],
        chunks=[len(rows) for rows in each],
        tokens=[row.token_count for row in whole],
    )


def _encode_separately(model: Model, job: RankJob) -> EncodedJob:
    """Encode the query and then the documents, each after the prompt of its role."""
    query_prompt = choose_prompt(model.recipe, None, "query", job.instruction)
    [query] = model.encoder.encode([job.query], query_prompt, role="query")
    if job.on_overflow == "error" and query.truncated_tokens:
        raise _query_error(query.token_count, query.token_count - query.truncated_tokens)
    prompt = choose_prompt(model.recipe, None, "document")

    def encode(documents: Sequence[str], max_tokens: int | None) -> list[Row]:
        return model.encoder.encode(documents, prompt, max_tokens)

    whole = encode(job.documents, job.max_tokens_per_document)
    if not query.ids:
        raise EmptyInput("the query has no token this model knows", "query")
    _check_tokens("document {} has", whole)
    each = _split_long(model, job, whole, encode, lambda: model.encoder.budget_after_prompt(prompt))
    return EncodedJob(
        rows=check_rows([query, *[row for rows in each for row in rows]], "truncate"),
        chunks=[len(rows) for rows in each],
        tokens=[query.token_count + row.token_count for row in whole],
    )


def _check_tokens(what: str, rows: Sequence[Row]) -> None:
    """Raise EmptyInput for a row without tokens; ``what`` is the error's subject, with the row's index."""
    for index, row in enumerate(rows):
        if not row.ids:
            raise EmptyInput(f"{what.format(index)} no token this model knows", "documents")


def _split_long(
    model: Model, job: RankJob, whole: Sequence[Row], encode: EncodeDocuments, budget: Callable[[], TokenBudget]
) -> list[list[Row]]:
    """Return the rows of each document: its own, or those of its chunks if it is too long and the job wants chunks.

    Tokens in none of the chunks count as truncated from the last one. Equal documents share their rows.
    """
    long = dict.fromkeys(text for text, row in zip(job.documents, whole, strict=True) if row.truncated_tokens)
    how = Chunking(max_chunks=job.max_chunks_per_document or 1, max_tokens=job.max_tokens_per_document, keep=job.keep)
    split: dict[str, list[Row]] = {}
    if long and (how.max_chunks > 1 or how.keep == "end"):
        available = budget()
        chunks = {text: model.encoder.chunk(text, available, how) for text in long}
        encoded = iter(encode([piece for each in chunks.values() for piece in each.texts], None))
        for text, each in chunks.items():
            *parts, last = [next(encoded) for _ in each.texts]
            truncated_tokens = last.truncated_tokens + each.truncated_tokens
            split[text] = [*parts, msgspec.structs.replace(last, truncated_tokens=truncated_tokens)]
    rows = [split.get(text, [row]) for text, row in zip(job.documents, whole, strict=True)]
    if job.on_overflow == "error":
        _check_truncation(whole, rows)
    return rows


def _check_truncation(whole: Sequence[Row], rows: Sequence[Sequence[Row]]) -> None:
    """Raise TextTooLong for a document that lost tokens in all of its rows together."""
    for index, (row, parts) in enumerate(zip(whole, rows, strict=True)):
        if truncated := sum([part.truncated_tokens for part in parts]):
            raise TextTooLong(index, row.token_count, max(row.token_count - truncated, 0))


def _compute_scores(recipe: Recipe, encoded: Sequence[EncodedJob], results: Results) -> tuple[Scores, Scores]:
    """Return raw scores and scores in [0, 1] of all documents, each that of its best chunk.

    ``results`` are the engine's, one for each row: logits of pairs, or vectors to compare.
    """
    if recipe.task == "score":
        raw, mapped = results, scores.activate(recipe, results)
    else:
        ends = [*accumulate([len(job.rows) for job in encoded])]
        raw, mapped = scores.compare_groups(recipe, np.split(results, ends[:-1]))  # a query and its documents each
    chunks = [count for job in encoded for count in job.chunks]
    if len(chunks) == len(raw):
        return raw, mapped
    starts = [0, *accumulate(chunks[:-1])]
    return np.maximum.reduceat(raw, starts), np.maximum.reduceat(mapped, starts)


def _all_rows(encoded: Sequence[EncodedJob]) -> list[Row]:
    return [row for job in encoded for row in job.rows]
