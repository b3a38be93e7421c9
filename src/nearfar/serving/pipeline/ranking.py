"""A query and documents → rows for an engine, and what came of those → a score for each document."""

from __future__ import annotations

from itertools import accumulate, groupby
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import Struct

from nearfar.core.errors import EmptyInput, InputError, TextTooLong
from nearfar.core.jobs import RankJob
from nearfar.models.tokenization.chunking import Chunking
from nearfar.models.tokenization.prompts import choose_prompt
from nearfar.models.tokenization.row import Row
from nearfar.serving.pipeline.encoding import refuse_empty
from nearfar.serving.postprocess import scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nearfar.core.jobs import ScoreJob
    from nearfar.models.recipe.recipe import Recipe
    from nearfar.models.tokenization.chunking import TokenBudget
    from nearfar.serving.postprocess.scores import Scores
    from nearfar.serving.queue.scheduler import Results
    from nearfar.serving.registry.opening import Model

    Lay = Callable[[Sequence[str], int | None], list[Row]]


class Laid(Struct, frozen=True, kw_only=True):
    """One job's rows: the query's, where it has one of its own, and those of each document, as many as ``chunks`` says.

    ``tokens`` are those of the query with each document before anything was cut.
    """

    rows: list[Row]
    chunks: list[int]
    tokens: list[int]


def refuse_unrankable(job: RankJob) -> None:
    """Refuse a job without a query or documents, or with limits below 1."""
    if not job.query.strip():
        raise EmptyInput("query must not be empty or be only whitespace", "query")
    if not job.documents:
        raise EmptyInput("list of documents must not be empty", "documents")
    limits = {
        "top_n": job.top_n,
        "max_tokens_per_document": job.max_tokens_per_document,
        "max_chunks_per_document": job.max_chunks_per_document,
    }
    for param, value in limits.items():
        if value is not None and value < 1:
            raise InputError(f"{param} must be at least 1, not {value}", param)


def by_query(job: ScoreJob) -> list[RankJob]:
    """Put neighbours with the same query together, as it need be read only once."""
    return [
        RankJob(
            model=job.model,
            query=query,
            documents=tuple(document for _, document in pairs),
            max_tokens_per_document=job.max_tokens_per_document,
        )
        for query, pairs in groupby(job.pairs, key=lambda pair: pair[0])
    ]


def lay(model: Model, job: RankJob) -> Laid:
    """Tokenise a job. Documents are cut whatever the model's ``on_overflow`` says, as rerankers do; not the job's."""
    return _pairs(model, job) if model.recipe.task == "score" else _query_and_documents(model, job)


def _pairs(model: Model, job: RankJob) -> Laid:
    def laid(documents: Sequence[str], limit: int | None) -> list[Row]:
        return model.tokens.encode_pairs(job.query, documents, limit, job.instruction)

    whole = laid(job.documents, job.max_tokens_per_document)
    each = _chunked(model, job, whole, laid, lambda: model.tokens.budget_beside_query(job.query, job.instruction))
    return Laid(
        rows=[row for rows in each for row in rows],
        chunks=[len(rows) for rows in each],
        tokens=[row.token_count for row in whole],
    )


def _query_and_documents(model: Model, job: RankJob) -> Laid:
    """Put the query first and the documents after it, each with the prompt of its role."""
    query_prompt = choose_prompt(model.recipe, None, "query", job.instruction)
    [query] = model.tokens.encode([job.query], query_prompt, role="query")
    if job.on_overflow == "error" and query.truncated_tokens:
        raise InputError(
            f"the query has {query.token_count} tokens; at most {query.token_count - query.truncated_tokens} fit",
            "query",
        )
    prompt = choose_prompt(model.recipe, None, "document")

    def laid(documents: Sequence[str], limit: int | None) -> list[Row]:
        return model.tokens.encode(documents, prompt, limit)

    whole = laid(job.documents, job.max_tokens_per_document)
    each = _chunked(model, job, whole, laid, lambda: model.tokens.budget_after_prompt(prompt))
    documents = [row for rows in each for row in rows]
    refuse_empty([query, *documents])
    return Laid(
        rows=[query, *documents],
        chunks=[len(rows) for rows in each],
        tokens=[query.token_count + row.token_count for row in whole],
    )


def _chunked(
    model: Model, job: RankJob, whole: Sequence[Row], laid: Lay, room: Callable[[], TokenBudget]
) -> list[list[Row]]:
    """Give each document's rows: the one that it has, or those of its chunks where it is cut and chunks are wanted.

    What is in none of the chunks counts as cut from the last. Equal documents have the same rows.
    """
    over = dict.fromkeys(text for text, row in zip(job.documents, whole, strict=True) if row.truncated_tokens)
    how = Chunking(max_chunks=job.max_chunks_per_document or 1, max_tokens=job.max_tokens_per_document, keep=job.keep)
    found: dict[str, list[Row]] = {}
    if over and (how.max_chunks > 1 or how.keep == "end"):
        place = room()
        chunks = {text: model.tokens.chunk(text, place, how) for text in over}
        made = iter(laid([piece for one in chunks.values() for piece in one.texts], None))
        for text, one in chunks.items():
            *parts, last = [next(made) for _ in one.texts]
            found[text] = [
                *parts,
                msgspec.structs.replace(last, truncated_tokens=last.truncated_tokens + one.truncated_tokens),
            ]
    each = [found.get(text, [row]) for text, row in zip(job.documents, whole, strict=True)]
    if job.on_overflow == "error":
        for index, (row, rows) in enumerate(zip(whole, each, strict=True)):
            if cut := sum(part.truncated_tokens for part in rows):
                raise TextTooLong(index, row.token_count, max(row.token_count - cut, 0))
    return each


def compare(recipe: Recipe, laid: Sequence[Laid], found: Results) -> tuple[Scores, Scores]:
    """Score every document by the best of its chunks, the jobs' documents end to end; as it is, and mapped to [0, 1].

    ``found`` is what the model made of the rows: logits of pairs, or what is compared now.
    """
    if recipe.task == "score":
        raw, mapped = found, scores.sigmoid(found)
    else:
        ends = [*accumulate(len(one.rows) for one in laid)]
        each = np.split(found, ends[:-1])  # what became of every job's query, and of its documents after it
        raw, mapped = scores.compared(recipe, each)
    chunks = [count for one in laid for count in one.chunks]
    if len(chunks) == len(raw):
        return raw, mapped
    starts = [0, *accumulate(chunks[:-1])]
    return np.maximum.reduceat(raw, starts), np.maximum.reduceat(mapped, starts)
