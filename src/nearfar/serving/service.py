"""The rules: what a job may ask for, and what its answer holds. Knows no dialect and no HTTP.

Limits, prompts, dimensions, order, scores and usage are decided here, once, for every dialect.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nearfar.errors import (
    BadDimensions,
    DeadlinePassed,
    EmptyInput,
    EngineFailed,
    InputError,
    NotReady,
    Overloaded,
    TooLong,
    TooManyTokens,
)
from nearfar.models import openai_tokens
from nearfar.models.prompts import choose_prompt, prompt_for
from nearfar.serving.border import contained
from nearfar.serving.scoring import cosines, of_representations, sigmoid, softmax
from nearfar.types import Classified, Embedded, Ranked, RankedDocument, Represented, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import Any

    import numpy.typing as npt

    from nearfar.models.tokens import Row
    from nearfar.serving.fleet import Fleet, Lease
    from nearfar.serving.observe import Observer
    from nearfar.serving.opening import Model
    from nearfar.serving.round import Call, Results
    from nearfar.types import Ceiling, ClassifyJob, EmbedJob, FloatArray, RankJob, RepresentJob, Role, Task, TokenIds

    _T = TypeVar("_T")

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
        async with self._lease(job.model, "embed") as (model, prompt_name):
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
        async with self._lease(job.model, "rank") as (model, _):
            _refuse_unrankable(job)
            rows, scores = await self._score(model, job)
            best = np.argsort(-scores, kind="stable")[: job.top_n]
            results = tuple(RankedDocument(int(index), float(scores[index])) for index in best)
            return Ranked(model=model.info.name, results=results, usage=self._count(model, rows))

    async def _score(self, model: Model, job: RankJob) -> tuple[list[Row], npt.NDArray[Any]]:
        """Score every document, in the job's order, the way the model does."""
        size = len(job.query) + _size(job.documents)
        if model.recipe.task == "score":
            rows, logits = await self._run(model, size, lambda: _pair_rows(model, job))
            return rows, sigmoid(logits)
        rows, found = await self._run(model, size, lambda: _separate_rows(model, job))
        if model.recipe.pooling:
            return rows, (1.0 + cosines(found[0], found[1:])) / 2.0
        _, scores = await self._aside(lambda: of_representations(model.recipe, found[0], list(found[1:])))
        return rows, scores

    async def represent(self, job: RepresentJob) -> Represented:
        """Give all that the model makes of the job's texts, from one forward. Raises as ``embed`` does."""
        async with self._lease(job.model, job.task) as (model, prompt_name):
            if not job.inputs:
                raise EmptyInput("there is nothing to embed")
            role = job.role or "document"
            prompt = choose_prompt(model.recipe, prompt_name or job.prompt, role)
            rows, found = await self._run(
                model,
                _size(job.inputs),
                lambda: _known(model, model.tokens.encode(job.inputs, prompt, role=role)),
                "represent",
            )
            return Represented(model=model.info.name, texts=tuple(found), usage=self._count(model, rows))

    async def classify(self, job: ClassifyJob) -> Classified:
        """Give each text, or pair, a score for each of the model's labels. Raises as ``embed`` does."""
        async with self._lease(job.model, "classify") as (model, _):
            if not job.inputs:
                raise EmptyInput("there is nothing to classify")
            size = sum(len(text) if isinstance(text, str) else _size(text) for text in job.inputs)
            rows, logits = await self._run(model, size, lambda: _labelled_rows(model, job))
            logits = logits.reshape(len(rows), -1)  # (B,) → (B, 1)
            alone = model.recipe.independent_labels or logits.shape[1] == 1
            shares = logits if job.raw_scores else sigmoid(logits) if alone else softmax(logits)
            usage, labels = self._count(model, rows), model.recipe.labels
            return Classified(model=model.info.name, labels=labels, scores=shares.astype(np.float32), usage=usage)

    async def _run(
        self, model: Model, size: int, tokenise: Callable[[], list[Row]], call: Call | None = None
    ) -> tuple[list[Row], Results]:
        """Tokenise and let the model run."""
        rows = await self._tokenise(size, tokenise)
        return rows, await model.lane.submit(rows, call)

    @asynccontextmanager
    async def _lease(self, name: str | None, task: Task) -> AsyncIterator[Lease]:
        """Hold the model that a job means. The wait for it and the work with it share one deadline."""
        is_there = False
        try:
            async with asyncio.timeout(self._deadline_s), self._fleet.lease(name, task) as lease:
                is_there = True
                yield lease
        except TimeoutError as error:
            if is_there:
                raise DeadlinePassed(f"no answer within {self._deadline_s:g} s", retry_after_s=1) from error
            raise NotReady(f"the model wasn't ready within {self._deadline_s:g} s", retry_after_s=1) from error

    async def _tokenise(self, size: int, call: Callable[[], list[Row]]) -> list[Row]:
        if size <= _TOKENISED_AT_ONCE:
            return contained(call)
        if self._tokenising and self._tokenising + size > _MAX_TOKENISING:
            raise Overloaded("too much text waits to be tokenised", retry_after_s=1)
        self._tokenising += size
        try:
            return await self._aside(call)
        finally:
            self._tokenising -= size

    async def _aside(self, call: Callable[[], _T]) -> _T:
        """Compute on a thread, as it may take many milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, contained, call)

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
    return _known(model, rows)


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
    return model.tokens.encode_pairs(job.query, job.documents, job.max_tokens_per_document)


def _separate_rows(model: Model, job: RankJob) -> list[Row]:
    """Put the query first and the documents after it, each with the prompt of its role; cut as pairs are."""
    query = model.tokens.encode([job.query], _prompt(model, "query"), role="query")
    documents = model.tokens.encode(job.documents, _prompt(model, "document"), job.max_tokens_per_document)
    return _known(model, [*query, *documents], cut=True)


def _labelled_rows(model: Model, job: ClassifyJob) -> list[Row]:
    """Tokenise texts, and pairs, each with its own first text."""
    rows = []
    for text in job.inputs:
        if isinstance(text, str):
            rows += model.tokens.encode([text])
        else:
            rows += model.tokens.encode_pairs(text[0], [text[1]], None)
    return _known(model, rows)


def _known(model: Model, rows: list[Row], *, cut: bool = False) -> list[Row]:
    """Refuse rows that have no token, and unless they may be ``cut``, what ``on_overflow`` says."""
    _refuse_empty(rows)
    if model.on_overflow == "error" and not cut:
        _refuse_cut(rows)
    return rows


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
