"""The service: runs jobs and returns their results. No dialect, no HTTP.

Limits, prompts, dimensions, order, scores and usage are decided here, once, for every dialect.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from nearfar.core.errors import (
    EmptyInput,
    InputError,
)
from nearfar.core.jobs import (
    Classified,
    Embedded,
    Ranked,
    RankedDocument,
    Represented,
    Scored,
    Tokenized,
    TokenizedText,
    Usage,
)
from nearfar.core.types import TASK_OF, Representation, Task
from nearfar.models.tokenization.prompts import choose_prompt
from nearfar.serving.access import ANY_TASK, ModelAccess
from nearfar.serving.pipeline import embedding
from nearfar.serving.pipeline.encoding import (
    refuse_unrepresentable,
    rows_to_classify,
    rows_to_represent,
)
from nearfar.serving.pipeline.ranking import by_query, compare, lay, refuse_unrankable
from nearfar.serving.pipeline.tokenizer_pool import TokenizerPool
from nearfar.serving.postprocess import scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nearfar.core.caller import Caller
    from nearfar.core.jobs import ClassifyJob, DetokenizeJob, EmbedJob, RankJob, RepresentJob, ScoreJob, TokenizeJob
    from nearfar.core.types import EngineMethod, ModelInfo, TokenIds
    from nearfar.models.tokenization.row import Row
    from nearfar.serving.access import RequestContext
    from nearfar.serving.pipeline.ranking import Laid
    from nearfar.serving.postprocess.scores import Scores
    from nearfar.serving.queue.scheduler import Results
    from nearfar.serving.registry.fleet import Fleet
    from nearfar.serving.registry.opening import Model
    from nearfar.telemetry.events import Observer

_MOST_SHOWN = 262_144  # characters that one request may see tokenized: four times Cohere's limit for a text


class Service:
    """Runs jobs. One for the whole server; safe to call from many requests at once."""

    def __init__(self, fleet: Fleet, observer: Observer, timeout_s: float) -> None:
        self._observer = observer
        self._access = ModelAccess(fleet, observer, timeout_s)
        self._tokenizers = TokenizerPool()

    def close(self) -> None:
        """Drop what waits to be tokenized."""
        self._tokenizers.close()

    async def embed(self, job: EmbedJob, caller: Caller) -> Embedded:
        """Turn the job's texts into vectors.

        Raises a RequestError for a job that breaks a limit, a ServingError when it can't be answered now.
        """
        async with self._access.run_job(caller, job.model, ("embed",), len(job.inputs)) as context:
            model = context.model
            embedding.refuse_unembeddable(model.recipe, job)
            prompt = choose_prompt(model.recipe, context.prompt_name or job.prompt, job.role, job.instruction)
            laid = await self._tokenizers.run(_size(job.inputs), lambda: embedding.lay(model, job, prompt))
            return Embedded(
                model=model.info.name,
                vectors=await embedding.embed(context, job, laid),
                usage=self._count(model, laid.rows),
                timings=context.stopwatch.timings(),
                int8_range=embedding.int8_range_of(model, job),
            )

    async def prepare(self, name: str | None, task: Task, caller: Caller) -> ModelInfo:
        """See that the model that a job would get is in memory, and tell about it. Raises as ``embed`` does."""
        async with self._access.acquire(caller, name, (task,)) as context:
            return context.model.info

    async def similarity(self, job: EmbedJob, caller: Caller) -> Scored:
        """Compare the first of the job's texts with each of the others, by the cosine. Raises as ``embed`` does."""
        done = await self.embed(job, caller)
        found = scores.cosines(done.vectors[0], done.vectors[1:])
        return Scored(model=done.model, scores=tuple(found.tolist()), usage=done.usage, timings=done.timings)

    async def rank(self, job: RankJob, caller: Caller) -> Ranked:
        """Score each document against the query and sort: best first, ties in the job's order.

        Scores are in [0, 1], unless raw ones are asked for. Raises as ``embed`` does.
        """
        async with self._access.run_job(caller, job.model, ("rank",), len(job.documents)) as context:
            model = context.model
            refuse_unrankable(job)
            [laid], raw, mapped = await self._score(context, [job])
            found = raw if job.raw_scores else mapped
            best = np.argsort(-found, kind="stable")[: job.top_n]
            return Ranked(
                model=model.info.name,
                results=tuple(RankedDocument(int(index), float(found[index])) for index in best),
                document_tokens=tuple(laid.tokens),
                usage=self._count(model, laid.rows),
                timings=context.stopwatch.timings(),
            )

    async def score(self, job: ScoreJob, caller: Caller) -> Scored:
        """Compare the two texts of each pair. Raises as ``embed`` does."""
        async with self._access.run_job(caller, job.model, ("rank",), len(job.pairs)) as context:
            model = context.model
            if not job.pairs:
                raise EmptyInput("there is nothing to compare")
            laid, raw, mapped = await self._score(context, by_query(job))
            found = mapped if model.recipe.task == "score" and not job.raw_scores else raw
            return Scored(
                model=model.info.name,
                scores=tuple(found.tolist()),
                usage=self._count(model, _all_rows(laid)),
                timings=context.stopwatch.timings(),
            )

    async def tokenize(self, job: TokenizeJob, caller: Caller) -> Tokenized:
        """Show the job's texts as the model reads them, uncut. No model runs, and no tokens are counted as used."""
        async with self._access.acquire(caller, job.model, ANY_TASK) as context:
            model = context.model
            wanted = context.prompt_name or job.prompt
            prompt = choose_prompt(model.recipe, wanted, None) if wanted else ""
            texts = [prompt + text for text in job.texts]
            _refuse_showing(_size(texts))
            found = await self._tokenizers.run(
                _size(texts),
                lambda: tuple(TokenizedText(text, model.tokens.tokenize(text, special=job.special)) for text in texts),
            )
            return Tokenized(model=model.info.name, texts=found, max_tokens=model.info.max_tokens)

    async def detokenize(self, job: DetokenizeJob, caller: Caller) -> str:
        """Turn token ids of the model's own vocabulary into text."""
        async with self._access.acquire(caller, job.model, ANY_TASK) as context:
            size = _size([job.ids])
            _refuse_showing(size)
            tokens = context.model.tokens
            return await self._tokenizers.run(size, lambda: tokens.decode(job.ids, special=job.special))

    async def represent(self, job: RepresentJob, caller: Caller) -> Represented:
        """Give all that the model makes of the job's texts, from one forward. Raises as ``embed`` does."""
        tasks = (TASK_OF[job.outputs[0]],) if job.outputs else ANY_TASK
        async with self._access.run_job(caller, job.model, tasks, len(job.inputs)) as context:
            model = context.model
            refuse_unrepresentable(model, job)
            return await self._represent(context, job)

    async def token_vectors(self, job: RepresentJob, caller: Caller) -> Represented:
        """Give a vector for each token: the model's own where it has such, else what it pools.

        The latter are the last hidden states of all tokens, special ones and the prompt's as well. A text whose role
        isn't known then has the model's default prompt, as when it is embedded. Raises as ``embed`` does.
        """
        async with self._access.run_job(caller, job.model, ("multi_vector", "embed"), len(job.inputs)) as context:
            model = context.model
            if model.recipe.multi_vector:
                return await self._represent(context, job)
            if not job.inputs:
                raise EmptyInput("there is nothing to embed")
            prompt = choose_prompt(model.recipe, context.prompt_name or job.prompt, job.role)
            rows, states = await self._run(
                context, _size(job.inputs), lambda: rows_to_represent(model, job, prompt), "hidden_states"
            )
            texts = tuple(Representation(multi_vector=of) for of in states)
            return Represented(
                model=model.info.name, texts=texts, usage=self._count(model, rows), timings=context.stopwatch.timings()
            )

    async def _represent(self, context: RequestContext, job: RepresentJob) -> Represented:
        model = context.model
        prompt = choose_prompt(model.recipe, context.prompt_name or job.prompt, job.role or "document")
        rows, found = await self._run(
            context, _size(job.inputs), lambda: rows_to_represent(model, job, prompt), "represent"
        )
        return Represented(
            model=model.info.name,
            texts=tuple(found),
            usage=self._count(model, rows),
            timings=context.stopwatch.timings(),
        )

    async def classify(self, job: ClassifyJob, caller: Caller) -> Classified:
        """Give each text, or pair, a score for each of the model's labels. Raises as ``embed`` does."""
        async with self._access.run_job(caller, job.model, ("classify",), len(job.inputs)) as context:
            model = context.model
            if not job.inputs:
                raise EmptyInput("there is nothing to classify")
            size = sum(len(text) if isinstance(text, str) else _size(text) for text in job.inputs)
            rows, logits = await self._run(context, size, lambda: rows_to_classify(model, job))
            found = logits if job.raw_scores else scores.probabilities(model.recipe, logits)
            found = found.reshape(len(rows), -1).astype(np.float32)  # (B,) → (B, 1)
            labels = model.recipe.labels
            return Classified(
                model=model.info.name,
                labels=labels,
                scores=found,
                usage=self._count(model, rows),
                timings=context.stopwatch.timings(),
            )

    async def _score(self, context: RequestContext, jobs: Sequence[RankJob]) -> tuple[list[Laid], Scores, Scores]:
        """Compare every document with its job's query, in order; give the scores as they are, and mapped to [0, 1]."""
        model = context.model
        size = sum(len(job.query) + _size(job.documents) for job in jobs)
        laid = await self._tokenizers.run(size, lambda: [lay(model, job) for job in jobs])
        found = await context.submit(_all_rows(laid))
        if model.recipe.task == "score" or model.recipe.pooling:
            return laid, *compare(model.recipe, laid, found)
        return laid, *await asyncio.to_thread(compare, model.recipe, laid, found)  # it may take a while

    async def _run(
        self, context: RequestContext, size: int, tokenize: Callable[[], list[Row]], call: EngineMethod | None = None
    ) -> tuple[list[Row], Results]:
        """Tokenize and let the model run."""
        rows = await self._tokenizers.run(size, tokenize)
        return rows, await context.submit(rows, call)

    def _count(self, model: Model, rows: Sequence[Row]) -> Usage:
        each = tuple((len(row.ids), row.truncated_tokens) for row in rows)
        usage = Usage(tokens=sum(read for read, _ in each), truncated_tokens=sum(cut for _, cut in each), each=each)
        self._observer.tokens_counted(model.info.name, usage.tokens, usage.truncated_tokens)
        return usage


def _size(inputs: Sequence[str | TokenIds]) -> int:
    """Count the characters, a token id for about four of them."""
    return sum(len(text) if isinstance(text, str) else 4 * len(text) for text in inputs)


def _all_rows(laid: Sequence[Laid]) -> list[Row]:
    return [row for one in laid for row in one.rows]


def _refuse_showing(size: int) -> None:
    if size > _MOST_SHOWN:
        raise InputError(f"the texts have {size} characters together; at most {_MOST_SHOWN} are shown at once")
