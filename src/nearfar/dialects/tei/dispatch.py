"""TEI's generic routes: the body's fields and the model's task decide what a request asks for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from litestar import Request, Response, post
from msgspec import UNSET

from nearfar.core.errors import InputError
from nearfar.core.jobs import Usage
from nearfar.dialects.kit.request import cancel_on_disconnect, decode_json, fleet_of, read_body, read_request
from nearfar.dialects.tei.answers import Answer, send
from nearfar.dialects.tei.bodies import (
    DispatchFields,
    EmbedAllRequest,
    EmbedRequest,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    VertexReply,
    VertexRequest,
)
from nearfar.dialects.tei.embed import embed, embed_all, embed_sparse, similarity
from nearfar.dialects.tei.inputs import check_count
from nearfar.dialects.tei.rerank import predict, rerank
from nearfar.dialects.tei.route_docs import INVOKE, VERTEX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nearfar.core.types import Task
    from nearfar.dialects.kit.request import AnyRequest

_T = TypeVar("_T")
_any = msgspec.json.Decoder(msgspec.Raw)
_vertex = msgspec.json.Decoder(VertexRequest)
# What a body with only ``inputs`` asks for, by the first of these tasks that the model has.
_BY_TASK: dict[Task, tuple[type, Callable[..., Awaitable[Answer]]]] = {
    "embed": (EmbedRequest, embed),
    "sparse": (EmbedAllRequest, embed_sparse),
    "multi_vector": (EmbedAllRequest, embed_all),
    "classify": (PredictRequest, predict),
    "rank": (RerankRequest, rerank),
}


@post(["/", "/invocations"], status_code=200, opt=INVOKE)
async def invoke(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer Hugging Face's and SageMaker's clients, which use one path for all tasks."""
    raw = await read_body(request, _any)
    return send(request, await cancel_on_disconnect(request, _dispatch(request, bytes(raw))))


@post("/vertex", status_code=200, opt=VERTEX)
async def vertex(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _vertex)
    check_count("instances", body.instances)
    return send(request, await cancel_on_disconnect(request, _dispatch_each(request, body.instances)))


async def _dispatch(request: AnyRequest, raw: bytes) -> Answer:
    fields = _decode(raw, DispatchFields)
    if fields.texts is not UNSET and bytes(fields.texts) != b"null":
        return await rerank(request, _decode(raw, RerankRequest))
    if fields.inputs is not UNSET and bytes(fields.inputs).startswith(b"{"):
        return await similarity(request, _decode(raw, SimilarityRequest))
    tasks = await fleet_of(request).tasks_of(fields.model or None)
    kind, run = next(_BY_TASK[task] for task in _BY_TASK if task in tasks)
    return await run(request, _decode(raw, kind))


async def _dispatch_each(request: AnyRequest, instances: Sequence[msgspec.Raw]) -> Answer:
    """Answer several bodies concurrently. Raises the error of the first that fails."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_dispatch(request, bytes(instance))) for instance in instances]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    answers = [task.result() for task in tasks]
    return Answer(
        body=msgspec.json.encode(VertexReply([msgspec.Raw(answer.body) for answer in answers])),
        model=answers[0].model,
        rows=sum(answer.rows for answer in answers),
        characters=sum(answer.characters for answer in answers),
        usage=Usage(
            tokens=sum(answer.usage.tokens for answer in answers),
            truncated_tokens=sum(answer.usage.truncated_tokens for answer in answers),
        ),
        timings=None,
    )


def _decode(raw: bytes, kind: type[_T]) -> _T:
    try:
        return decode_json(raw, msgspec.json.Decoder(kind))
    except msgspec.ValidationError as error:
        raise InputError(str(error)) from error
