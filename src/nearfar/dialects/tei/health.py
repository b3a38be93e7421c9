"""Whether the server is well, as TEI, SageMaker, Infinity and embed-rerank ask: nothing runs for it."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, route
from msgspec import UNSET

from nearfar.dialects.kit.base import fleet_of, json_response
from nearfar.dialects.tei.bodies import AboutServer, HealthReply, Welcome, WorkingModel
from nearfar.dialects.tei.described import HEALTH, WELCOME

if TYPE_CHECKING:
    from nearfar.core.types import ModelInfo
    from nearfar.dialects.kit.base import AnyRequest

_NAME = "nearfar"


@route(["/health", "/ping"], http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **HEALTH})
async def health(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer 200 under the conditions of /health/ready, and tell who is at work."""
    request.app.state.drain.refuse_if_draining()
    fleet_of(request).refuse_unready()
    return json_response(_health(request))


@route("/", http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **WELCOME})
async def welcome() -> Response[bytes]:
    """Answer as long as the event loop turns, and say where to read on."""
    return json_response(Welcome(f"{_NAME} is running", version(_NAME), "/docs"))


def _health(request: AnyRequest) -> HealthReply:
    infos = fleet_of(request).infos()
    loaded = {state.name for state in fleet_of(request).states() if state.state == "loaded"}

    def part(about: ModelInfo) -> WorkingModel:
        there = about.name in loaded
        return WorkingModel(
            name=about.engine,
            status="healthy" if there else "not_loaded",
            model_loaded=there,
            model_name=about.name,
            device=about.device,
        )

    embeds = [about for about in infos if "embed" in about.tasks]
    # A model that was made to rank before one that can do it as well, as for a request that names none.
    ranks = sorted(
        (about for about in infos if "rank" in about.tasks), key=lambda about: not about.score_is_probability
    )
    now = time.time()
    return HealthReply(
        status="healthy",
        uptime=round(time.monotonic() - request.app.state.started, 3),
        timestamp=now,
        unix=now,
        service=AboutServer(_NAME, version(_NAME)),
        backend=part(embeds[0]) if embeds else UNSET,
        reranker=part(ranks[0]) if ranks else UNSET,
    )
