"""The service: runs jobs and returns their results. No dialect, no HTTP.

Limits, prompts, dimensions, order, scores and usage are decided here and in the pipeline, once for every dialect.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from nearfar.core.caller import Caller
from nearfar.core.jobs import (
    Classified,
    ClassifyJob,
    DetokenizeJob,
    Embedded,
    EmbedJob,
    Ranked,
    RankJob,
    Represented,
    RepresentJob,
    Scored,
    ScoreJob,
    Tokenized,
    TokenizeJob,
)
from nearfar.core.settings import Settings
from nearfar.core.types import TASK_OF, ModelInfo, ModelState
from nearfar.serving.access import ANY_TASK, ModelAccess, RequestContext
from nearfar.serving.answers import UnreadAnswers
from nearfar.serving.merging import Outcome, embed_merged
from nearfar.serving.offload import offload
from nearfar.serving.pipeline import embedding, ranking, representation, tokenization
from nearfar.serving.pipeline.encoding import TokenizerPool
from nearfar.serving.postprocess.scores import similarities
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.timeouts import Timeouts
from nearfar.telemetry.events import Observer


class Service:
    """Runs jobs. One for the whole server; safe to call from many requests at once.

    Every method raises a RequestError if the job breaks a limit, and a ServingError if it can't run now.
    """

    def __init__(self, fleet: Fleet, observe: Observer, settings: Settings, timeouts: Timeouts | None = None) -> None:
        self._fleet = fleet
        self.unread = UnreadAnswers(settings.max_unread_bytes, settings.write_timeout_s)
        self._access = ModelAccess(fleet, observe, settings, timeouts or Timeouts(), self.unread)
        self._tokenizers = TokenizerPool()

    def close(self) -> None:
        """Cancel what waits to be tokenized."""
        self._tokenizers.close()

    async def prepare(self, name: str | None, caller: Caller) -> ModelInfo:
        """Load the model that an EmbedJob would get, and return its description."""

        async def describe(context: RequestContext) -> ModelInfo:
            return context.model.info

        return await self._access.run(caller, name, ("embed",), describe, answers="vectors")

    async def describe(self, model: str, _: Caller) -> ModelInfo:
        """Return the model's description, loaded or not. Raises as ``Fleet.describe`` does."""
        return self._fleet.describe(model)

    async def load(self, model: str, caller: Caller) -> ModelState:
        """Load the model. Raises Forbidden, and as ``Fleet.load`` does."""
        caller.require_scope_for("changes")
        return await self._fleet.load(model)

    async def unload(self, model: str, caller: Caller) -> ModelState:
        """Unload the model once no request uses it. Raises Forbidden and ModelNotFound."""
        caller.require_scope_for("changes")
        return await self._fleet.unload(model)

    def embed(self, job: EmbedJob, caller: Caller) -> Coroutine[Any, Any, Embedded]:
        """Compute a vector for each text."""
        work = partial(embedding.embed, job, self._tokenizers)
        return self._access.run_job(caller, job.model, ("embed",), work, answers="vectors", inputs=len(job.inputs))

    def embed_merged(self, jobs: Sequence[EmbedJob], caller: Caller) -> Coroutine[Any, Any, list[Outcome]]:
        """Run many jobs, those with the same options as one. Return the result of each, or its error."""
        return embed_merged(lambda job: self.embed(job, caller), jobs)

    async def similarity(self, job: EmbedJob, caller: Caller) -> Scored:
        """Compute the model's own similarity of the job's first text with each of the others, usually the cosine."""

        async def work(context: RequestContext) -> Scored:
            embedded = await embedding.embed(job, self._tokenizers, context)
            recipe, vectors = context.model.recipe, embedded.vectors
            scores = await offload(vectors.size, lambda: similarities(recipe, vectors[0], vectors[1:]))
            return _scored(embedded, scores.tolist())

        return await self._access.run_job(caller, job.model, ("embed",), work, answers="scores", inputs=len(job.inputs))

    def rank(self, job: RankJob, caller: Caller) -> Coroutine[Any, Any, Ranked]:
        """Score each document against the query and sort them: best first, equal scores in the job's order.

        Scores are in [0, 1] unless the job asks for raw ones.
        """
        work = partial(ranking.rank, job, self._tokenizers)
        return self._access.run_job(caller, job.model, ("rank",), work, answers="scores", inputs=len(job.documents))

    def score(self, job: ScoreJob, caller: Caller) -> Coroutine[Any, Any, Scored]:
        """Score the two texts of each pair."""
        work = partial(ranking.score, job, self._tokenizers)
        return self._access.run_job(caller, job.model, ("rank",), work, answers="scores", inputs=len(job.pairs))

    def classify(self, job: ClassifyJob, caller: Caller) -> Coroutine[Any, Any, Classified]:
        """Score each text, or pair of texts, for each of the model's labels."""
        work = partial(representation.classify, job, self._tokenizers)
        return self._access.run_job(caller, job.model, ("classify",), work, answers="scores", inputs=len(job.inputs))

    def represent(self, job: RepresentJob, caller: Caller) -> Coroutine[Any, Any, Represented]:
        """Compute every output of the model for each text, in one forward."""
        tasks = (TASK_OF[job.outputs[0]],) if job.outputs else ANY_TASK
        work = partial(representation.represent, job, self._tokenizers)
        return self._access.run_job(caller, job.model, tasks, work, answers="vectors", inputs=len(job.inputs))

    def token_vectors(self, job: RepresentJob, caller: Caller) -> Coroutine[Any, Any, Represented]:
        """Compute a vector for each token: the model's own multi-vector output, or else its last hidden states.

        Hidden states include those of special tokens and of the prompt. A text without a role then gets the model's
        default prompt, as if it were embedded.
        """
        work = partial(representation.token_vectors, job, self._tokenizers)
        return self._access.run_job(
            caller, job.model, ("multi_vector", "embed"), work, answers="vectors", inputs=len(job.inputs)
        )

    def tokenize(self, job: TokenizeJob, caller: Caller) -> Coroutine[Any, Any, Tokenized]:
        """Return the tokens of each text, untruncated. No forward runs, and no usage is counted."""
        work = partial(tokenization.tokenize, job, self._tokenizers)
        return self._access.run(caller, job.model, ANY_TASK, work, answers="tokens")

    def detokenize(self, job: DetokenizeJob, caller: Caller) -> Coroutine[Any, Any, str]:
        """Decode token ids of the model's own vocabulary."""
        work = partial(tokenization.detokenize, job, self._tokenizers)
        return self._access.run(caller, job.model, ANY_TASK, work, answers="tokens")


def _scored(embedded: Embedded, scores: list[float]) -> Scored:
    return Scored(
        info=embedded.info,
        inputs=len(scores),
        scores=tuple(scores),
        usage=embedded.usage,
        timings=embedded.timings,
    )
