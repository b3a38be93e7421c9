"""NVIDIA's ranking of passages, also at the path of its catalog that has the model's name in it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from litestar.params import FromPath
from msgspec import Struct

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import Ranked, RankJob
from nearfar.dialects.kit.checks import TRUNCATE
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.rendering import TokenUsage
from nearfar.dialects.kit.request import fleet_of
from nearfar.dialects.kit.route_docs import AtLeastOne, NotBlank, RouteDocs, json_schema
from nearfar.dialects.voyage.embeddings import check_choice
from nearfar.serving.service import Service

_CHOICES = [value for value in TRUNCATE if value]


class QueryText(Struct):
    """The query."""

    text: NotBlank


class PassageText(Struct):
    """A passage. One with an image is refused: leaving the image out would change the order."""

    text: str
    image: Annotated[str, json_schema(enum=[""])] | None = None


class RankingRequest(Struct, kw_only=True):
    """The body of POST /v1/ranking. Without ``model`` the default reranker answers. ``top_k`` is LiteLLM's."""

    query: QueryText
    passages: Annotated[list[PassageText], json_schema(minItems=1)]
    truncate: Annotated[str, json_schema(enum=_CHOICES)] | None = None
    top_k: AtLeastOne | None = None
    model: str | None = None


class Ranking(Struct):
    """A passage's index and its logit; of an embedding model its cosine."""

    index: int
    logit: float


class RankingReply(Struct):
    """The body of a response, best first."""

    rankings: list[Ranking]
    usage: TokenUsage


def _to_job(body: RankingRequest) -> RankJob:
    check_choice("truncate", body.truncate, _CHOICES)
    if not body.passages:
        raise EmptyInput("passages must not be empty", "passages")
    if (index := next((index for index, one in enumerate(body.passages) if one.image), None)) is not None:
        raise InputError("images can't be ranked here", f"passages[{index}].image")
    if body.top_k is not None and body.top_k < 1:
        raise InputError(f"must be at least 1, not {body.top_k}", "top_k")
    on_overflow, keep = TRUNCATE[body.truncate]
    return RankJob(
        model=body.model or None,
        query=body.query.text,
        documents=tuple(passage.text for passage in body.passages),
        top_n=body.top_k,
        raw_scores=True,
        on_overflow=on_overflow,
        keep=keep,
    )


def _reply(_: RankingRequest, __: RankJob, done: Ranked) -> RankingReply:
    rankings = [Ranking(result.index, result.score) for result in done.results]
    return RankingReply(rankings, TokenUsage(done.usage.tokens, done.usage.tokens))


_DOCS = RouteDocs(
    summary="Passages sorted by how well they answer a query, as in NVIDIA's NIM",
    answers=("scores",),
    body=RankingRequest,
    reply=RankingReply,
    example={"query": {"text": "Where is the cat?"}, "passages": [{"text": "Rates rose."}, {"text": "The cat sat."}]},
)
RANKING = Endpoint(_DOCS, _to_job, Service.rank, _reply)
_CATALOG_DOCS = msgspec.structs.replace(_DOCS, path={"owner": "sentence-transformers", "model": "all-MiniLM-L6-v2"})


@post(
    ["/v1/retrieval/{model:str}/reranking", "/v1/retrieval/{owner:str}/{model:str}/reranking"],
    status_code=200,
    opt={"docs": _CATALOG_DOCS},
)
async def rank_at_catalog_path(
    request: Request[Any, Any, Any], model: FromPath[str], owner: FromPath[str | None] = None
) -> Response[bytes]:
    """Answer for the model in the path. NVIDIA's paths have an underscore where the name has a dot."""
    name = f"{owner}/{model}" if owner else model
    is_known = bool(fleet_of(request).known_tasks(name))
    return await RANKING.answer_for(request, name if is_known else name.replace("_", "."))
