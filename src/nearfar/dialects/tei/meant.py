"""Bodies whose path doesn't say what is wanted: they tell by their fields, and by what the model is for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import UNSET

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.jobs import Usage
from nearfar.dialects.kit.base import fleet_of
from nearfar.dialects.kit.request import decode_json
from nearfar.dialects.tei.answering import Answered
from nearfar.dialects.tei.bodies import (
    EmbedAllRequest,
    EmbedRequest,
    Meant,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    VertexReply,
)
from nearfar.dialects.tei.embedding import embed, embed_all, embed_sparse, similarity
from nearfar.dialects.tei.inputs import refuse_many
from nearfar.dialects.tei.ranking import predict, rerank

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nearfar.core.types import Task
    from nearfar.dialects.kit.base import AnyRequest

_T = TypeVar("_T")
_meant = msgspec.json.Decoder(Meant)
# What a body with nothing but inputs asks of a model that can do several things.
_BY_TASK: dict[Task, tuple[type, Callable[..., Awaitable[Answered]]]] = {
    "embed": (EmbedRequest, embed),
    "sparse": (EmbedAllRequest, embed_sparse),
    "multi_vector": (EmbedAllRequest, embed_all),
    "classify": (PredictRequest, predict),
    "rank": (RerankRequest, rerank),
}


async def answer_as_meant(request: AnyRequest, raw: bytes) -> Answered:
    """Answer a body as the route would that it is meant for."""
    meant = _decoded(raw, _meant)
    if meant.texts is not UNSET and bytes(meant.texts) != b"null":
        return await rerank(request, _read(raw, RerankRequest))
    if meant.inputs is not UNSET and bytes(meant.inputs).startswith(b"{"):
        return await similarity(request, _read(raw, SimilarityRequest))
    tasks = await fleet_of(request).tasks_of(meant.model or None)
    kind, answer = next(_BY_TASK[task] for task in _BY_TASK if task in tasks)
    return await answer(request, _read(raw, kind))


async def answer_each(request: AnyRequest, instances: Sequence[msgspec.Raw]) -> Answered:
    """Answer several bodies at once. Raises what the first one that fails raises."""
    if not instances:
        raise EmptyInput("`instances` cannot be empty")
    refuse_many("instances", len(instances))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer_as_meant(request, bytes(instance))) for instance in instances]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    done = [task.result() for task in tasks]
    return Answered(
        body=msgspec.json.encode(VertexReply([msgspec.Raw(one.body) for one in done])),
        model=done[0].model,
        rows=sum(one.rows for one in done),
        characters=sum(one.characters for one in done),
        usage=Usage(
            tokens=sum(one.usage.tokens for one in done),
            truncated_tokens=sum(one.usage.truncated_tokens for one in done),
        ),
        timings=None,
    )


def _read(raw: bytes, kind: type[_T]) -> _T:
    return _decoded(raw, msgspec.json.Decoder(kind))


def _decoded(raw: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    try:
        return decode_json(raw, decoder)
    except msgspec.ValidationError as error:
        raise InputError(str(error)) from error
