"""Ollama's embeddings, and a rerank route in their style. Null means absent; unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nearfar.core.caller import Caller
from nearfar.core.jobs import Embedded, EmbedJob, Ranked, RankJob, Result
from nearfar.dialects.kit.body.decode import replace_invalid_bytes
from nearfar.dialects.kit.checks import overflow_of, require_model
from nearfar.dialects.kit.endpoint import TRUNCATED, Endpoint
from nearfar.dialects.kit.rendering import RankedItem, ranked_items, render_rows
from nearfar.dialects.kit.request import AnyRequest
from nearfar.dialects.kit.route_docs import NOT_EMPTY, RANKING, NotBlank, Numbers, RouteDocs, json_schema, requires
from nearfar.dialects.ollama.unload import MODEL_EXAMPLE, KeepAlive, is_zero
from nearfar.serving.service import Service


class Options(Struct, kw_only=True):
    """The only one of Ollama's options that has an effect: the most tokens of a text, special tokens not counted."""

    num_ctx: float | None = None  # clients in JavaScript and Lua may send 512.0


class TextRequest(Struct, kw_only=True):
    """What requests for embeddings have in common.

    ``keep_alive`` of 0 without input unloads the model. Otherwise it has no effect: several programs share this
    server, so its settings ``idle_timeout_s`` and ``pin`` decide how long a model stays.
    """

    model: str | None = None
    options: Options | Annotated[list[str], Meta(max_length=0)] | None = None  # PHP writes {} as []
    keep_alive: KeepAlive | None = None

    @property
    def max_tokens(self) -> int | None:
        """Return the caller's limit of a text's tokens, or None."""
        num_ctx = self.options.num_ctx if isinstance(self.options, Options) else None
        return int(num_ctx) if num_ctx and num_ctx >= 1 else None


class EmbedRequest(TextRequest, kw_only=True):
    """The body of POST /api/embed."""

    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class Preload(Struct, frozen=True):
    """A request without input: load the model in advance, or unload it."""

    model: str
    unload: bool


class EmbedReply(Struct, kw_only=True, omit_defaults=True):
    """The body of an answer to /api/embed. Durations are in nanoseconds."""

    model: str
    embeddings: list[Numbers]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingsRequest(TextRequest, kw_only=True):
    """The body of POST /api/embeddings, the older form of /api/embed."""

    prompt: str | None = None


class EmbeddingsReply(Struct):
    """The body of an answer to /api/embeddings: a unit vector, or an empty list for an empty prompt."""

    embedding: Numbers


class RerankRequest(Struct, kw_only=True):
    """The body of POST /api/rerank, as in the changes proposed to Ollama, which has no such route."""

    model: str | None = None
    query: NotBlank
    documents: Annotated[list[str], json_schema(minItems=1)]
    top_n: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    instruction: str | None = None
    keep_alive: KeepAlive | None = None


class Document(Struct):
    """A document of the request."""

    text: str


class RerankReply(Struct, kw_only=True):
    """The body of an answer to /api/rerank, best first. Durations are in nanoseconds."""

    model: str
    results: list[RankedItem[Document]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


_EMBED = RouteDocs(
    summary="Embed texts, as in Ollama",
    answers=("vectors", "changes"),
    body=requires(EmbedRequest, model=NOT_EMPTY),
    reply=EmbedReply,
    example={"model": MODEL_EXAMPLE, "input": ["a cat on the sofa"]},
)
_EMBEDDINGS = RouteDocs(
    summary="Embed one text, as older clients of Ollama do",
    answers=("vectors",),
    details="The vector has unit length; Ollama's own has not, which makes no difference to cosines.",
    body=requires(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingsReply,
    example={"model": MODEL_EXAMPLE, "prompt": "a cat on the sofa"},
)
_RERANK = RouteDocs(
    summary="Rank documents by relevance to a query, an addition to Ollama's routes",
    answers=("scores",),
    body=requires(RerankRequest, model=NOT_EMPTY),
    reply=RerankReply,
    example={"model": MODEL_EXAMPLE, **RANKING, "top_n": 1},
)


def _embed_job(body: EmbedRequest) -> EmbedJob | Preload:
    texts = [body.input] if isinstance(body.input, str) and body.input else body.input or []
    if not texts:
        return Preload(require_model(body.model), unload=is_zero(body.keep_alive))
    return EmbedJob(
        model=require_model(body.model),
        inputs=tuple(texts),
        # As in Ollama, dimensions that aren't fewer than the model's have no effect.
        dimensions=body.dimensions if body.dimensions and body.dimensions > 0 else None,
        clamp_dimensions=True,
        max_tokens=body.max_tokens,
        on_overflow=overflow_of(body.truncate),
    )


def _prompt_job(body: EmbeddingsRequest) -> EmbedJob | Preload:
    model = require_model(body.model)
    if not body.prompt:
        return Preload(model, unload=False)
    return EmbedJob(model=model, inputs=(body.prompt,), max_tokens=body.max_tokens)


async def _embed(service: Service, job: EmbedJob | Preload, caller: Caller) -> Embedded | None:
    """Embed the texts; without any, load or unload the model and return None."""
    if isinstance(job, EmbedJob):
        return await service.embed(job, caller)
    if job.unload:
        await service.unload(job.model, caller)
    else:
        await service.prepare(job.model, caller)
    return None


def _rank_job(body: RerankRequest) -> RankJob:
    return RankJob(
        model=require_model(body.model),
        query=body.query,
        documents=tuple(body.documents),
        top_n=body.top_n or None,
        instruction=body.instruction or None,
    )


def _embed_reply(_: EmbedRequest, job: EmbedJob | Preload, done: Embedded | None) -> EmbedReply:
    if done is None:
        return EmbedReply(model=require_model(job.model), embeddings=[])
    return EmbedReply(embeddings=render_rows(done), **_counts(job.model, done))


def _rank_reply(body: RerankRequest, job: RankJob, done: Ranked) -> RerankReply:
    results = ranked_items(done, [*map(Document, job.documents)] if body.return_documents else None)
    return RerankReply(results=results, **_counts(job.model, done))


def _counts(model: str | None, done: Result) -> dict[str, Any]:
    """Return the fields that all answers have."""
    load_ns, run_ns = (int(seconds * 1e9) for seconds in (done.timings.load_s, done.timings.total_s))
    return {
        "model": model,
        "total_duration": load_ns + run_ns,
        "load_duration": load_ns,
        "prompt_eval_count": done.usage.tokens,
    }


def _no_usage(_: AnyRequest, __: object, done: object) -> dict[str, str]:
    """Report for a request without input, which has no usage, that nothing was truncated."""
    return {} if done else {TRUNCATED: "0"}


EMBED = Endpoint(_EMBED, _embed_job, _embed, _embed_reply, headers=_no_usage, repair=replace_invalid_bytes)
EMBEDDINGS = Endpoint(
    _EMBEDDINGS,
    _prompt_job,
    _embed,
    lambda _, __, done: EmbeddingsReply(render_rows(done)[0] if done else msgspec.Raw(b"[]")),
    headers=_no_usage,
    repair=replace_invalid_bytes,
)
RERANK = Endpoint(_RERANK, _rank_job, Service.rank, _rank_reply, repair=replace_invalid_bytes)
