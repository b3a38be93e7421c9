"""embed-rerank's descriptions of the default models, and its health route. No model runs for them."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Annotated, Any

from litestar import Request, Response, get, route
from msgspec import UNSET, Struct, UnsetType

from nearfar.core.errors import ModelNotReady, ShuttingDown, WrongTask
from nearfar.core.types import ModelInfo, Task
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import AnyRequest, fleet_of
from nearfar.dialects.kit.route_docs import EngineName, json_schema, route_docs


class Backend(Struct, kw_only=True):
    """A model and its engine."""

    name: EngineName
    device: str
    model_name: str
    dtype: str
    max_tokens: int
    embedding_dimension: int | UnsetType = UNSET
    method: str | UnsetType = UNSET


class ServiceInfo(Struct, kw_only=True):
    """The body of GET /api/v1/embed/info and /api/v1/rerank/info. ``available``: loaded in memory."""

    service: Annotated[str, json_schema(enum=["EmbeddingService", "RerankingService"])]
    version: str
    backend: Backend
    available: bool
    supported_operations: list[Annotated[str, json_schema(enum=["embed_texts", "rerank_passages"])]]


class HealthBackend(Struct, kw_only=True):
    """The embedding model and its engine."""

    name: EngineName
    device: str
    model: str
    ready: bool


class HealthReply(Struct, kw_only=True):
    """The body of GET /v1/health on a healthy server."""

    status: str
    openai_compatible: bool
    backend: HealthBackend | UnsetType = UNSET
    timestamp: float


HEADERS = {"x-process-time": "Seconds since the request began"}
_INFO: dict[str, Any] = {"reply": ServiceInfo, "headers": HEADERS, "raises": (ModelNotReady, WrongTask)}
_RERANK_INFO = route_docs(
    "Describe the default reranker",
    **_INFO,
    reply_example={"service": "RerankingService", "supported_operations": ["rerank_passages"]},
)
_HEALTH = route_docs(
    "Report whether the models can answer, as in embed-rerank",
    reply=HealthReply,
    headers=HEADERS,
    raises=(ModelNotReady, ShuttingDown),
)


@get("/api/v1/embed/info", opt=route_docs("Describe the default embedding model", **_INFO))
async def embed_info(request: Request[Any, Any, Any]) -> Response[bytes]:
    info = _default_model(request, "embed")
    return _service_info(request, info, "EmbeddingService", "embed_texts", embedding_dimension=info.dim)


@get("/api/v1/rerank/info", opt=_RERANK_INFO)
async def rerank_info(request: Request[Any, Any, Any]) -> Response[bytes]:
    info = _default_model(request, "rank")
    return _service_info(request, info, "RerankingService", "rerank_passages", method=ranking_method(info))


@route("/v1/health", http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **_HEALTH})
async def health(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer 200 under the conditions of /health/ready."""
    request.app.state.drain.refuse_if_draining()
    fleet_of(request).refuse_unready()
    info = next((info for info in fleet_of(request).infos() if "embed" in info.tasks), None)
    reply = HealthReply(
        status="healthy",
        openai_compatible=True,
        backend=UNSET
        if info is None
        else HealthBackend(name=info.engine, device=info.device, model=info.name, ready=_is_loaded(request, info)),
        timestamp=time.time(),
    )
    return json_response(reply, headers=process_time(request))


def ranking_method(info: ModelInfo) -> str:
    """Return embed-rerank's name of how the model ranks."""
    return "cross-encoder" if info.score_is_probability else "embedding_similarity"


def process_time(request: AnyRequest, *_: object) -> dict[str, str]:
    """Return the header with the seconds since the request began."""
    return {"x-process-time": f"{time.perf_counter() - request.scope['state']['began']:.6f}"}


def _service_info(request: AnyRequest, info: ModelInfo, service: str, operation: str, **more: Any) -> Response[bytes]:
    """Describe a model. ``more`` are the fields of Backend that only one service has."""
    reply = ServiceInfo(
        service=service,
        version=version("nearfar"),
        backend=Backend(
            name=info.engine,
            device=info.device,
            model_name=info.name,
            dtype=info.dtype,
            max_tokens=info.max_tokens,
            **more,
        ),
        available=_is_loaded(request, info),
        supported_operations=[operation],
    )
    return json_response(reply, headers=process_time(request))


def _default_model(request: AnyRequest, task: Task) -> ModelInfo:
    """Return the model for requests without a name. Raises WrongTask if none has the task."""
    fleet = fleet_of(request)
    fleet.refuse_unready()
    if info := fleet.default(task):
        return info
    raise WrongTask("the served model", task)


def _is_loaded(request: AnyRequest, info: ModelInfo) -> bool:
    return any(state.name == info.name and state.state == "loaded" for state in fleet_of(request).states())
