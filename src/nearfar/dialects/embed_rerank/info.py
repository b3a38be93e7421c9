"""What embed-rerank tells of its models and its health; nothing runs for it."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get, route
from msgspec import UNSET

from nearfar.core.errors import WrongTask
from nearfar.dialects.embed_rerank.bodies import Backend, HealthBackend, HealthReply, ServiceInfo
from nearfar.dialects.embed_rerank.described import EMBED_INFO, HEALTH, RERANK_INFO
from nearfar.dialects.kit.base import fleet_of, json_response

if TYPE_CHECKING:
    from nearfar.core.types import ModelInfo, Task
    from nearfar.dialects.kit.base import AnyRequest


@get("/api/v1/embed/info", opt=EMBED_INFO)
async def embed_info(request: Request[Any, Any, Any]) -> Response[bytes]:
    info = _default(request, "embed")
    about = ServiceInfo(
        service="EmbeddingService",
        version=version("nearfar"),
        backend=_backend(info),
        available=_is_there(request, info),
        supported_operations=["embed_texts"],
    )
    about.backend.embedding_dimension = info.dim
    return json_response(about, headers=_process_time(request))


@get("/api/v1/rerank/info", opt=RERANK_INFO)
async def rerank_info(request: Request[Any, Any, Any]) -> Response[bytes]:
    info = _default(request, "rank")
    about = ServiceInfo(
        service="RerankingService",
        version=version("nearfar"),
        backend=_backend(info),
        available=_is_there(request, info),
        supported_operations=["rerank_passages"],
    )
    about.backend.method = method_of(info)
    return json_response(about, headers=_process_time(request))


@route("/v1/health", http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **HEALTH})
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
        else HealthBackend(name=info.engine, device=info.device, model=info.name, ready=_is_there(request, info)),
        timestamp=time.time(),
    )
    return json_response(reply, headers=_process_time(request))


def method_of(info: ModelInfo) -> str:
    """Say in embed-rerank's words how a model ranks."""
    return "cross-encoder" if info.score_is_probability else "embedding_similarity"


def _default(request: AnyRequest, task: Task) -> ModelInfo:
    """Give the model that does the task for requests that name none: one that was made for it, before one that can."""
    fleet = fleet_of(request)
    fleet.refuse_unready()
    able = [info for info in fleet.infos() if task in info.tasks]
    if not able:
        raise WrongTask("the served model", task)
    return next((info for info in able if info.score_is_probability == (task == "rank")), able[0])


def _is_there(request: AnyRequest, info: ModelInfo) -> bool:
    return any(state.name == info.name and state.state == "loaded" for state in fleet_of(request).states())


def _backend(info: ModelInfo) -> Backend:
    return Backend(
        name=info.engine, device=info.device, model_name=info.name, dtype=info.dtype, max_tokens=info.max_tokens
    )


def _process_time(request: AnyRequest) -> dict[str, str]:
    return {"x-process-time": f"{time.perf_counter() - request.scope['state']['began']:.6f}"}
