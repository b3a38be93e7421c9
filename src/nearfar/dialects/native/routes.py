"""The server's own routes: health, metrics, several outputs of one forward pass, loading and unloading models."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal, get_args

import msgspec
from litestar import Request, Response, get, route
from msgspec import UNSET, Struct, UnsetType
from prometheus_client import CONTENT_TYPE_LATEST

from nearfar.core.errors import (
    BodyTooLarge,
    InputError,
    InternalError,
    MalformedBody,
    ModelNotFound,
    ModelNotReady,
    ShuttingDown,
)
from nearfar.core.jobs import Represented, RepresentJob
from nearfar.core.types import ModelState, Output, Representation
from nearfar.dialects.kit.endpoint import Endpoint, json_response
from nearfar.dialects.kit.rendering import render_array
from nearfar.dialects.kit.request import caller_of, fleet_of, settings_of
from nearfar.dialects.kit.route_docs import Numbers, RouteDocs, RowsOfNumbers, json_schema, route_docs
from nearfar.serving.local_models import LocalModel, find_local_models
from nearfar.serving.service import Service


class ModelRequest(Struct, kw_only=True):
    """The body of an admin request: the model's name or one of its aliases."""

    model: str


class RepresentRequest(Struct, kw_only=True):
    """The body of POST /represent. Without ``outputs`` all outputs of the model are returned."""

    input: str | Annotated[list[str], json_schema(minItems=1)]
    model: str | None = None
    outputs: list[Output] | None = None
    input_type: Literal["query", "document"] | None = None
    prompt_name: str | None = None


class Sparse(Struct):
    """The weights above 0 of a vector with ``size`` dimensions, and their indices."""

    indices: Annotated[msgspec.Raw, json_schema(type="array", items={"type": "integer"})]
    values: Numbers
    size: int


class TextRepresentation(Struct, kw_only=True, omit_defaults=True):
    """A text's outputs, and the token of each row of ``multi_vector``, in the model's own vocabulary."""

    index: int
    dense: Numbers | UnsetType = UNSET
    multi_vector: RowsOfNumbers | UnsetType = UNSET
    token_ids: tuple[int, ...] | UnsetType = UNSET
    sparse: Sparse | UnsetType = UNSET


class TokenUsage(Struct):
    """Tokens that the model processed, and tokens truncated before."""

    tokens: int
    truncated_tokens: int


class RepresentReply(Struct, kw_only=True):
    """The body of an answer to /represent, in the request's order."""

    model: str
    data: list[TextRepresentation]
    usage: TokenUsage


class Health(Struct):
    """The body of GET /health/live and /health/ready."""

    status: Literal["live", "ready"]


class RecentRequests(Struct):
    """The body of GET /admin/requests. ``time`` is in seconds since 1970; the other fields are the log's."""

    requests: list[dict[str, Any]]


class LocalModels(Struct):
    """The body of GET /admin/models."""

    models: list[LocalModel]


_LIVE = route_docs("Report that the process runs", reply=Health, raises=())
_READY = route_docs(
    "Report whether the models can answer",
    reply=Health,
    reply_example={"status": "ready"},
    raises=(ModelNotReady, ShuttingDown),
)
_REQUESTS = route_docs(
    "Return the last requests",
    answers="internals",
    reply=RecentRequests,
    reply_example={"requests": [{"time": 1795903200.5, "method": "POST", "path": "/v1/embeddings", "status": 200}]},
)
_LOCAL_MODELS = route_docs("List the models on this disk", answers="internals", reply=LocalModels)
_ADMIN: dict[str, Any] = {
    "answers": ("changes",),
    "body": ModelRequest,
    "reply": ModelState,
    "example": {"model": "sentence-transformers/all-MiniLM-L6-v2"},
    "counts": False,
    "raises": (InputError, MalformedBody, BodyTooLarge, ModelNotFound, ModelNotReady, ShuttingDown, InternalError),
}


@route("/health/live", http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **_LIVE})
async def live() -> Response[bytes]:
    """Answer 200 while the event loop runs."""
    return json_response(Health("live"))


@route("/health/ready", http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **_READY})
async def ready(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer 200 once every model that loads at startup has completed a forward pass, else 503.

    Later it answers 503 while a model's worker has died or doesn't answer. Models that were unloaded, or load on
    demand, don't count. A check is cheap: a model runs for it only while it fails.
    """
    request.app.state.drain.refuse_if_draining()
    fleet_of(request).refuse_unready()
    return json_response(Health("ready"))


@get("/metrics", opt=route_docs("Return the metrics for Prometheus", media_type="text/plain"))
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return all metrics in Prometheus' text format."""
    media_type = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")  # Litestar appends it
    return Response(request.app.state.metrics.render(), media_type=media_type)


@get("/admin/requests", opt=_REQUESTS)
async def recent_requests(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the last 200 POST requests as the log has them, newest first: no text and no key. Raises Forbidden."""
    caller_of(request.scope).require_scope_for("internals")
    return json_response(RecentRequests(request.app.state.access_log.recent()))


@get("/admin/models", opt=_LOCAL_MODELS)
async def local_models(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the models on this disk, and what each is or why it can't be served. Raises Forbidden."""
    caller_of(request.scope).require_scope_for("internals")
    found = await asyncio.to_thread(lambda: list(find_local_models(settings_of(request))))
    return json_response(LocalModels(found))


def _name(body: ModelRequest) -> str:
    return body.model


def _state(_: ModelRequest, __: str, state: ModelState) -> ModelState:
    return state


def _admin_error(error: msgspec.ValidationError) -> InputError:
    return InputError(f'the body must be {{"model": "a name"}}: {error}')


def _represent_job(body: RepresentRequest) -> RepresentJob:
    return RepresentJob(
        model=body.model or None,
        inputs=(body.input,) if isinstance(body.input, str) else tuple(body.input),
        outputs=tuple(body.outputs or ()),
        role=body.input_type,
        prompt=body.prompt_name,
    )


def _represent_reply(body: RepresentRequest, _: RepresentJob, done: Represented) -> RepresentReply:
    outputs = set(body.outputs or get_args(Output))
    return RepresentReply(
        model=done.info.name,
        data=[_text_representation(index, text, outputs) for index, text in enumerate(done.texts)],
        usage=TokenUsage(done.usage.tokens, done.usage.truncated_tokens),
    )


def _text_representation(index: int, text: Representation, outputs: set[Output]) -> TextRepresentation:
    found = TextRepresentation(index=index)
    if text.dense is not None and "dense" in outputs:
        found.dense = render_array(text.dense)
    if text.multi_vector is not None and "multi_vector" in outputs:
        found.multi_vector = render_array(text.multi_vector)
        found.token_ids = text.token_ids
    if (sparse := text.sparse) is not None and "sparse" in outputs:
        found.sparse = Sparse(render_array(sparse.indices), render_array(sparse.values), sparse.size)
    return found


_REPRESENT = RouteDocs(
    summary="Return all outputs of a model for texts",
    answers=("vectors",),
    details="One forward pass computes all of them: dense, multi-vector and sparse.",
    body=RepresentRequest,
    reply=RepresentReply,
    example={"input": ["a cat on the sofa"], "input_type": "document"},
    reply_example={"data": [{"index": 0, "dense": [0.1431, -0.0766, -0.0241]}]},
)
REPRESENT = Endpoint(_REPRESENT, _represent_job, Service.represent, _represent_reply)
_LOAD = RouteDocs(summary="Load a model", details="Loads the model, and answers when it is loaded.", **_ADMIN)
LOAD = Endpoint(_LOAD, _name, Service.load, _state, shape_error=_admin_error)
_UNLOAD = RouteDocs(
    summary="Unload a model",
    details="Unloads the model when its running requests have ended. The next request loads it again.",
    **_ADMIN,
    reply_example={"state": "unloaded"},
)
UNLOAD = Endpoint(_UNLOAD, _name, Service.unload, _state, shape_error=_admin_error)
