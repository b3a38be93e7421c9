"""Text Embeddings Inference's protocol: https://huggingface.github.io/text-embeddings-inference.

The health route also has the paths and fields that SageMaker's, Infinity's and embed-rerank's clients read.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from litestar import Request, Response, route
from msgspec import UNSET

from nearfar.core.types import ModelInfo
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import AnyRequest, fleet_of
from nearfar.dialects.kit.route_docs import route_docs
from nearfar.dialects.tei.bodies import HealthReply, ModelHealth, ServerInfo, Welcome
from nearfar.dialects.tei.dispatch import INVOKE, VERTEX, answer_as_hub, invoke_root
from nearfar.dialects.tei.embed import EMBED, EMBED_ALL, EMBED_SPARSE, SIMILARITY
from nearfar.dialects.tei.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.tei.rerank import PREDICT, RERANK
from nearfar.dialects.tei.tokenize import DECODE, TOKENIZE

_NAME = "nearfar"
_HEALTH = route_docs(
    "Report whether the models can answer",
    reply=HealthReply,
    reply_example={"service": {"name": _NAME, "version": "0.1.0"}},
)
_WELCOME = route_docs("Report that the process runs", reply=Welcome)


@route(["/health", "/ping"], http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **_HEALTH})
async def health(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer 200 under the conditions of /health/ready, with the models at work."""
    request.app.state.drain.refuse_if_draining()
    fleet_of(request).refuse_unready()
    return json_response(_health(request))


@route("/", http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **_WELCOME})
async def welcome() -> Response[bytes]:
    """Answer while the event loop runs, with the path of the documentation."""
    return json_response(Welcome(f"{_NAME} is running", version(_NAME), "/docs"))


def _health(request: AnyRequest) -> HealthReply:
    infos = fleet_of(request).infos()
    loaded = {state.name for state in fleet_of(request).states() if state.state == "loaded"}

    def model_health(info: ModelInfo) -> ModelHealth:
        is_loaded = info.name in loaded
        return ModelHealth(
            name=info.engine,
            status="healthy" if is_loaded else "not_loaded",
            model_loaded=is_loaded,
            model_name=info.name,
            device=info.device,
        )

    embedders = [info for info in infos if "embed" in info.tasks]
    # Rerankers first, as for a request without a model name.
    rankers = sorted((info for info in infos if "rank" in info.tasks), key=lambda info: not info.score_is_probability)
    now = time.time()
    return HealthReply(
        status="healthy",
        uptime=round(time.monotonic() - request.app.state.started, 3),
        timestamp=now,
        unix=now,
        service=ServerInfo(_NAME, version(_NAME)),
        backend=model_health(embedders[0]) if embedders else UNSET,
        reranker=model_health(rankers[0]) if rankers else UNSET,
    )


dialect = Dialect(
    name="tei",
    routes=[
        EMBED.route("/embed"),
        EMBED_ALL.route("/embed_all"),
        EMBED_SPARSE.route("/embed_sparse"),
        SIMILARITY.route("/similarity"),
        PREDICT.route("/predict"),
        DECODE.route("/decode"),
        RERANK.route("/rerank", fields=("texts",)),
        TOKENIZE.route("/tokenize", fields=("inputs",)),
        INVOKE,
        VERTEX,
    ],
    handlers=[invoke_root, answer_as_hub, health, welcome],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="Text Embeddings Inference: https://huggingface.github.io/text-embeddings-inference",
    prefixes=(
        "/similarity",
        "/embed",
        "/predict",
        "/decode",
        "/invocations",
        "/vertex",
        "/ping",
        "/pipeline",
        "/hf-inference",
    ),
)
