"""The rules: what a job may ask for, and what its answer holds. Knows no dialect and no HTTP.

Limits, prompts, dimensions, order, scores and usage are decided here, once, for every dialect.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from nearfar.errors import (
    BadDimensions,
    DeadlinePassed,
    EmptyInput,
    EngineFailed,
    InputError,
    Overloaded,
    TooLong,
    TooManyTokens,
)
from nearfar.models import openai_tokens
from nearfar.models.prompts import choose_prompt, prompt_for
from nearfar.serving.border import contained
from nearfar.types import Embedded, Ranked, RankedDocument, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy.typing as npt

    from nearfar.models.tokens import Row
    from nearfar.serving.fleet import Fleet
    from nearfar.serving.observe import Observer
    from nearfar.serving.opening import Model
    from nearfar.types import Ceiling, EmbedJob, FloatArray, RankJob, Role, TokenIds

_TOKENISED_AT_ONCE = 1000  # characters; they take at most 0.4 ms, and handing them to a thread 0.15 ms
_MAX_TOKENISING = 50_000_000  # characters that wait for a tokenising thread: five of the largest bodies; a guess


class Service:
    """Answers jobs. One for the whole server; safe to call from many requests at once."""

    def __init__(self, fleet: Fleet, observer: Observer, deadline_s: float) -> None:
        self._fleet = fleet
        self._observer = observer
        self._deadline_s = deadline_s
        # Tokenising releases the GIL and takes microseconds a text, up to 50 ms for a long one. Two threads: the rare
        # text that has to be read for seconds (10 MB of few tokens) doesn't hold up the others by itself.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokens")
        self._tokenising = 0

    def close(self) -> None:
        """Drop what waits to be tokenised."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def embed(self, job: EmbedJob) -> Embedded:
        """Turn the job's texts into vectors.

        Raises a RequestError for a job that breaks a limit, a ServingError when it can't be answered now.
        """
        async with self._fleet.lease(job.model, "embed") as (model, prompt_name):
            dim = model.recipe.dim
            if not job.inputs:
                raise EmptyInput("there is nothing to embed")
            if job.dimensions is not None and not 1 <= job.dimensions <= dim:
                raise BadDimensions(job.dimensions, dim)
            prompt = choose_prompt(model.recipe, prompt_name or job.prompt, job.role)
            rows, vectors = await self._run(model, _size(job.inputs), lambda: _rows(model, job, prompt))
            if job.dimensions is not None and job.dimensions < dim:
                vectors = _shorten(vectors, job.dimensions, normalize=model.recipe.normalize)
            return Embedded(model=model.info.name, vectors=vectors, usage=self._count(model, rows))

    async def rank(self, job: RankJob) -> Ranked:
        """Score each document against the query, in [0, 1], and sort: best first, ties in the job's order.

        Raises as ``embed`` does.
        """
        async with self._fleet.lease(job.model, "rank") as (model, _):
            _refuse_unrankable(job)
            if job.instruction is not None and not model.recipe.judge:
                raise InputError(f"{model.info.name} takes no instruction", "instruction")
            rows, scores = await self._score(model, job)
            best = np.argsort(-scores, kind="stable")[: job.top_n]
            results = tuple(RankedDocument(int(index), float(scores[index])) for index in best)
            return Ranked(model=model.info.name, results=results, usage=self._count(model, rows))

    async def _score(self, model: Model, job: RankJob) -> tuple[list[Row], npt.NDArray[Any]]:
        """Score every document, in the job's order, the way the model does."""
        size = len(job.query) + _size(job.documents)
        if model.recipe.task == "score":
            rows, logits = await self._run(model, size, lambda: _pair_rows(model, job))
            return rows, _sigmoid(logits)
        rows, vectors = await self._run(model, size, lambda: _separate_rows(model, job))
        return rows, _cosine_scores(vectors[0], vectors[1:])

    async def _run(self, model: Model, size: int, tokenise: Callable[[], list[Row]]) -> tuple[list[Row], FloatArray]:
        """Tokenise and let the model run, within the deadline."""
        try:
            async with asyncio.timeout(self._deadline_s):
                rows = await self._tokenise(size, tokenise)
                return rows, await model.lane.submit(rows)
        except TimeoutError as error:
            raise DeadlinePassed(f"no answer within {self._deadline_s:g} s", retry_after_s=1) from error

    async def _tokenise(self, size: int, call: Callable[[], list[Row]]) -> list[Row]:
        if size <= _TOKENISED_AT_ONCE:
            return contained(call)
        if self._tokenising and self._tokenising + size > _MAX_TOKENISING:
            raise Overloaded("too much text waits to be tokenised", retry_after_s=1)
        self._tokenising += size
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, contained, call)
        finally:
            self._tokenising -= size

    def _count(self, model: Model, rows: Sequence[Row]) -> Usage:
        usage = Usage(tokens=sum(len(row.ids) for row in rows), truncated_tokens=sum(row.cut for row in rows))
        self._observer.tokens_counted(model.info.name, usage.tokens, usage.truncated_tokens)
        return usage


def _size(inputs: Sequence[str | TokenIds]) -> int:
    """Count the characters, a token id for about four of them."""
    return sum(len(text) if isinstance(text, str) else 4 * len(text) for text in inputs)


def _refuse_unrankable(job: RankJob) -> None:
    if not job.query.strip():
        raise EmptyInput("query must not be empty or be only whitespace", "query")
    if not job.documents:
        raise EmptyInput("list of documents must not be empty", "documents")
    for param, value in (("top_n", job.top_n), ("max_tokens_per_doc", job.max_tokens_per_document)):
        if value is not None and value < 1:
            raise InputError(f"{param} must be at least 1, not {value}", param)


def _rows(model: Model, job: EmbedJob, prompt: str) -> list[Row]:
    """Tokenise the job's inputs with the prompt before each, hold them against the limits, and cut them."""
    if job.ceiling:
        _refuse_many_ids(job.inputs, job.ceiling)
    texts = [text if isinstance(text, str) else openai_tokens.decode(text, job.vocabulary) for text in job.inputs]
    rows = model.tokens.encode(texts, prompt, enough=job.ceiling.tokens_each if job.ceiling else None)
    if job.ceiling:
        # Ids were held against the ceiling in their own count, since a client cuts its chunks by it.
        counts = [row.content if isinstance(text, str) else 0 for text, row in zip(job.inputs, rows, strict=True)]
        _refuse_over(counts, job.ceiling)
    _refuse_empty(rows)
    if model.on_overflow == "error":
        _refuse_cut(rows)
    return rows


def _refuse_many_ids(inputs: Sequence[str | TokenIds], ceiling: Ceiling) -> None:
    _refuse_over([0 if isinstance(text, str) else len(text) for text in inputs], ceiling)


def _refuse_over(counts: Sequence[int], ceiling: Ceiling) -> None:
    for index, count in enumerate(counts):
        if count > ceiling.tokens_each:
            raise TooLong(index, count, ceiling.tokens_each)
    if sum(counts) > ceiling.tokens_together:
        raise TooManyTokens(sum(counts), ceiling.tokens_together)


def _refuse_empty(rows: Sequence[Row]) -> None:
    for index, row in enumerate(rows):
        if not row.ids:
            raise EmptyInput(f"text {index} has no token this model knows")


def _refuse_cut(rows: Sequence[Row]) -> None:
    for index, row in enumerate(rows):
        if row.cut:
            raise TooLong(index, row.content, row.content - row.cut)


def _pair_rows(model: Model, job: RankJob) -> list[Row]:
    """Pair the query with each document. Over-long ones are cut whatever ``on_overflow`` says: rerankers always do."""
    return model.tokens.encode_pairs(job.query, job.documents, job.max_tokens_per_document, job.instruction)


def _separate_rows(model: Model, job: RankJob) -> list[Row]:
    """Put the query first and the documents after it, each with the prompt of its role; cut as pairs are."""
    query = model.tokens.encode([job.query], _prompt(model, "query"))
    documents = model.tokens.encode(job.documents, _prompt(model, "document"), job.max_tokens_per_document)
    _refuse_empty([*query, *documents])
    return [*query, *documents]


def _prompt(model: Model, role: Role) -> str:
    return prompt_for(model.recipe.prompts, role) or ""


def _shorten(vectors: FloatArray, dimensions: int, *, normalize: bool) -> FloatArray:
    """Keep the first components, (B, D) → (B, dimensions), and make unit vectors unit vectors again."""
    kept = vectors[:, :dimensions]
    if normalize:
        lengths = np.linalg.norm(kept, axis=1, keepdims=True)
        if not lengths.all():
            raise EngineFailed(f"the first {dimensions} components of a vector are all zero")
        kept = kept / lengths
    return np.ascontiguousarray(kept)


def _cosine_scores(query: FloatArray, documents: FloatArray) -> FloatArray:
    """Map the cosine of (D,) with each of (N, D) from [-1, 1] to [0, 1]."""
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(query)
    cosines = np.clip(documents @ query / lengths, -1.0, 1.0)  # rounding may pass 1 by 1e-7
    scores: FloatArray = (1.0 + cosines) / 2.0
    return scores


def _sigmoid(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Map logits (N,) to [0, 1]; through tanh, which can't overflow, and in float64, where -90 isn't yet 0."""
    return (1.0 + np.tanh(logits.astype(np.float64) / 2.0)) / 2.0
