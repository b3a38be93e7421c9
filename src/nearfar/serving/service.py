"""The service: runs jobs and returns their results. No dialect, no HTTP.

Limits, prompts, dimensions, order, scores and usage are decided here, once, for every dialect.
"""

from __future__ import annotations

import asyncio
from functools import partial
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
    from collections.abc import Sequence

    from nearfar.core.caller import Caller
    from nearfar.core.jobs import ClassifyJob, DetokenizeJob, EmbedJob, RankJob, RepresentJob, ScoreJob, TokenizeJob
    from nearfar.core.types import ModelInfo, TokenIds
    from nearfar.models.tokenization.row import Row
    from nearfar.serving.access import RequestContext
    from nearfar.serving.pipeline.ranking import Laid
    from nearfar.serving.postprocess.scores import Scores
    from nearfar.serving.registry.fleet import Fleet
    from nearfar.telemetry.events import Observer

_MAX_SHOWN = 262_144  # characters that one request may ask to see as tokens: four times Cohere's limit for a text


class Service:
    """Runs jobs. One for the whole server; safe to call from many requests at once.

    Every method raises a RequestError if the job breaks a limit, and a ServingError if it can't run now.
    """

    def __init__(self, fleet: Fleet, observe: Observer, timeout_s: float) -> None:
        self._access = ModelAccess(fleet, observe, timeout_s)
        self._tokenizers = TokenizerPool()

    def close(self) -> None:
        """Cancel what waits to be tokenized."""
        self._tokenizers.close()

    async def prepare(self, name: str | None, task: Task, caller: Caller) -> ModelInfo:
        """Load the model that a job of this kind would get, and return its description."""
        async with self._access.acquire(caller, name, (task,)) as context:
            return context.model.info

    async def embed(self, job: EmbedJob, caller: Caller) -> Embedded:
        """Compute a vector for each text."""
        return await self._access.run_job(caller, job.model, ("embed",), len(job.inputs), partial(self._embed, job))

    async def similarity(self, job: EmbedJob, caller: Caller) -> Scored:
        """Compute the cosine of the job's first text with each of the others."""
        embedded = await self.embed(job, caller)
        cosines = scores.cosines(embedded.vectors[0], embedded.vectors[1:])
        return Scored(
            model=embedded.model, scores=tuple(cosines.tolist()), usage=embedded.usage, timings=embedded.timings
        )

    async def rank(self, job: RankJob, caller: Caller) -> Ranked:
        """Score each document against the query and sort them: best first, equal scores in the job's order.

        Scores are in [0, 1] unless the job asks for raw ones.
        """
        return await self._access.run_job(caller, job.model, ("rank",), len(job.documents), partial(self._rank, job))

    async def score(self, job: ScoreJob, caller: Caller) -> Scored:
        """Score the two texts of each pair."""
        return await self._access.run_job(caller, job.model, ("rank",), len(job.pairs), partial(self._score, job))

    async def classify(self, job: ClassifyJob, caller: Caller) -> Classified:
        """Score each text, or pair of texts, for each of the model's labels."""
        tasks: tuple[Task, ...] = ("classify",)
        return await self._access.run_job(caller, job.model, tasks, len(job.inputs), partial(self._classify, job))

    async def represent(self, job: RepresentJob, caller: Caller) -> Represented:
        """Compute every output of the model for each text, in one forward."""
        tasks = (TASK_OF[job.outputs[0]],) if job.outputs else ANY_TASK
        return await self._access.run_job(caller, job.model, tasks, len(job.inputs), partial(self._represent, job))

    async def token_vectors(self, job: RepresentJob, caller: Caller) -> Represented:
        """Compute a vector for each token: the model's own multi-vector output, or else its last hidden states.

        Hidden states include those of special tokens and of the prompt. A text without a role then gets the model's
        default prompt, as if it were embedded.
        """
        tasks: tuple[Task, ...] = ("multi_vector", "embed")
        return await self._access.run_job(caller, job.model, tasks, len(job.inputs), partial(self._token_vectors, job))

    async def tokenize(self, job: TokenizeJob, caller: Caller) -> Tokenized:
        """Return the tokens of each text, untruncated. No forward runs, and no usage is counted."""
        async with self._access.acquire(caller, job.model, ANY_TASK) as context:
            model = context.model
            name = context.prompt_name or job.prompt
            prompt = choose_prompt(model.recipe, name, None) if name else ""
            texts = [prompt + text for text in job.texts]
            size = _characters(texts)
            _refuse_showing(size)
            tokenized = await self._tokenizers.run(
                size,
                lambda: tuple(TokenizedText(text, model.tokens.tokenize(text, special=job.special)) for text in texts),
            )
            return Tokenized(model=model.info.name, texts=tokenized, max_tokens=model.info.max_tokens)

    async def detokenize(self, job: DetokenizeJob, caller: Caller) -> str:
        """Decode token ids of the model's own vocabulary."""
        async with self._access.acquire(caller, job.model, ANY_TASK) as context:
            size = _characters([job.ids])
            _refuse_showing(size)
            tokens = context.model.tokens
            return await self._tokenizers.run(size, lambda: tokens.decode(job.ids, special=job.special))

    async def _embed(self, job: EmbedJob, context: RequestContext) -> Embedded:
        model = context.model
        embedding.refuse_unembeddable(model.recipe, job)
        prompt = choose_prompt(model.recipe, context.prompt_name or job.prompt, job.role, job.instruction)
        laid = await self._tokenizers.run(_characters(job.inputs), lambda: embedding.lay(model, job, prompt))
        return Embedded(
            model=model.info.name,
            vectors=await embedding.embed(context, job, laid),
            usage=_usage(laid.rows),
            timings=context.stopwatch.timings(),
            int8_range=embedding.int8_range_of(model, job),
        )

    async def _rank(self, job: RankJob, context: RequestContext) -> Ranked:
        refuse_unrankable(job)
        [laid], raw, mapped = await self._compare(context, [job])
        scores = raw if job.raw_scores else mapped
        best = np.argsort(-scores, kind="stable")[: job.top_n]
        return Ranked(
            model=context.model.info.name,
            results=tuple(RankedDocument(int(index), float(scores[index])) for index in best),
            document_tokens=tuple(laid.tokens),
            usage=_usage(laid.rows),
            timings=context.stopwatch.timings(),
        )

    async def _score(self, job: ScoreJob, context: RequestContext) -> Scored:
        if not job.pairs:
            raise EmptyInput("there is nothing to compare")
        laid, raw, mapped = await self._compare(context, by_query(job))
        scores = mapped if context.model.recipe.task == "score" and not job.raw_scores else raw
        return Scored(
            model=context.model.info.name,
            scores=tuple(scores.tolist()),
            usage=_usage(_all_rows(laid)),
            timings=context.stopwatch.timings(),
        )

    async def _compare(self, context: RequestContext, jobs: Sequence[RankJob]) -> tuple[list[Laid], Scores, Scores]:
        """Score the documents of all jobs, each against its job's query; return raw scores and those in [0, 1]."""
        model = context.model
        size = sum([len(job.query) + _characters(job.documents) for job in jobs])
        laid = await self._tokenizers.run(size, lambda: [lay(model, job) for job in jobs])
        results = await context.submit(_all_rows(laid))
        if model.recipe.task == "score" or model.recipe.pooling:
            return laid, *compare(model.recipe, laid, results)
        return laid, *await asyncio.to_thread(compare, model.recipe, laid, results)  # takes long for token vectors

    async def _classify(self, job: ClassifyJob, context: RequestContext) -> Classified:
        if not job.inputs:
            raise EmptyInput("there is nothing to classify")
        model = context.model
        size = sum([len(text) if isinstance(text, str) else _characters(text) for text in job.inputs])
        rows = await self._tokenizers.run(size, lambda: rows_to_classify(model, job))
        logits = await context.submit(rows)
        values = logits if job.raw_scores else scores.probabilities(model.recipe, logits)
        return Classified(
            model=model.info.name,
            labels=model.recipe.labels,
            scores=values.reshape(len(rows), -1).astype(np.float32),  # (B,) → (B, 1)
            usage=_usage(rows),
            timings=context.stopwatch.timings(),
        )

    async def _represent(self, job: RepresentJob, context: RequestContext) -> Represented:
        model = context.model
        refuse_unrepresentable(model, job)
        prompt = choose_prompt(model.recipe, context.prompt_name or job.prompt, job.role or "document")
        rows = await self._tokenizers.run(_characters(job.inputs), lambda: rows_to_represent(model, job, prompt))
        texts = await context.submit(rows, "represent")
        return _represented(context, rows, texts.tolist())

    async def _token_vectors(self, job: RepresentJob, context: RequestContext) -> Represented:
        model = context.model
        if model.recipe.multi_vector:
            return await self._represent(job, context)
        if not job.inputs:
            raise EmptyInput("there is nothing to embed")
        prompt = choose_prompt(model.recipe, context.prompt_name or job.prompt, job.role)
        rows = await self._tokenizers.run(_characters(job.inputs), lambda: rows_to_represent(model, job, prompt))
        states = await context.submit(rows, "hidden_states")
        return _represented(context, rows, [Representation(multi_vector=each) for each in states])


def _represented(context: RequestContext, rows: Sequence[Row], texts: Sequence[Representation]) -> Represented:
    return Represented(
        model=context.model.info.name,
        texts=tuple(texts),
        usage=_usage(rows),
        timings=context.stopwatch.timings(),
    )


def _usage(rows: Sequence[Row]) -> Usage:
    each = [(len(row.ids), row.truncated_tokens) for row in rows]
    tokens, truncated_tokens = map(sum, zip(*each, strict=True))
    return Usage(tokens=tokens, truncated_tokens=truncated_tokens, each=tuple(each))


def _characters(inputs: Sequence[str | TokenIds]) -> int:
    """Count the characters, four for a token id."""
    return sum([len(text) if isinstance(text, str) else 4 * len(text) for text in inputs])


def _all_rows(laid: Sequence[Laid]) -> list[Row]:
    return [row for one in laid for row in one.rows]


def _refuse_showing(size: int) -> None:
    if size > _MAX_SHOWN:
        raise InputError(f"the texts have {size} characters together; at most {_MAX_SHOWN} are shown at once")
