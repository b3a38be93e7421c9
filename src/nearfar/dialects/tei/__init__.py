"""Text Embeddings Inference's protocol: https://huggingface.github.io/text-embeddings-inference.

The health route also has the paths and fields that SageMaker's, Infinity's and embed-rerank's clients read.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, post, route
from msgspec import UNSET

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.endpoint import SharedRoute, json_response
from nearfar.dialects.kit.request import fleet_of
from nearfar.dialects.tei import route_docs as docs
from nearfar.dialects.tei.answers import handler
from nearfar.dialects.tei.bodies import (
    EmbedAllRequest,
    EmbedRequest,
    HealthReply,
    ModelHealth,
    PredictRequest,
    RerankRequest,
    ServerInfo,
    SimilarityRequest,
    Welcome,
)
from nearfar.dialects.tei.dispatch import invoke, vertex
from nearfar.dialects.tei.embed import embed, embed_all, embed_sparse, similarity
from nearfar.dialects.tei.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.tei.rerank import predict, rerank
from nearfar.dialects.tei.tokenize import decode, tokenize

if TYPE_CHECKING:
    from nearfar.core.types import ModelInfo
    from nearfar.dialects.kit.request import AnyRequest

_NAME = "nearfar"


@route(["/health", "/ping"], http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **docs.HEALTH})
async def health(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer 200 under the conditions of /health/ready, with the models at work."""
    request.app.state.drain.refuse_if_draining()
    fleet_of(request).refuse_unready()
    return json_response(_health(request))


@route("/", http_method=["GET", "HEAD"], status_code=200, opt={"public": True, **docs.WELCOME})
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
    handlers=[
        post("/embed", status_code=200, opt=docs.EMBED)(handler(EmbedRequest, embed)),
        post("/embed_all", status_code=200, opt=docs.EMBED_ALL)(handler(EmbedAllRequest, embed_all)),
        post("/embed_sparse", status_code=200, opt=docs.EMBED_SPARSE)(handler(EmbedAllRequest, embed_sparse)),
        post("/similarity", status_code=200, opt=docs.SIMILARITY)(handler(SimilarityRequest, similarity)),
        post("/predict", status_code=200, opt=docs.PREDICT)(handler(PredictRequest, predict)),
        *(decode, invoke, vertex, health, welcome),
    ],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="Text Embeddings Inference: https://huggingface.github.io/text-embeddings-inference",
    prefixes=("/similarity", "/embed", "/predict", "/decode", "/invocations", "/vertex", "/ping"),
    shared=[
        SharedRoute(path="/rerank", fields=("texts",), handler=handler(RerankRequest, rerank), docs=docs.RERANK),
        SharedRoute(path="/tokenize", fields=("inputs",), handler=tokenize, docs=docs.TOKENIZE),
    ],
)
