"""GET /info: every served model, and the default one as Text Embeddings Inference describes its only one."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Request, Response, get

from nearfar.core.types import ModelInfo, Task
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import fleet_of
from nearfar.dialects.kit.route_docs import route_docs
from nearfar.dialects.native.bodies import InfoReply, Labels, ModelType, Pooling, StartupInfoReply, TeiInfo
from nearfar.serving.registry.fleet import Fleet

_NAME = "nearfar"
# The default model is that of the first of these tasks that any model has.
_TASKS: tuple[Task, ...] = ("embed", "multi_vector", "sparse", "rank", "classify")
_INFO = route_docs(
    "Describe the served models",
    reply=(InfoReply, StartupInfoReply),
    reply_example={"name": _NAME, "model_type": {"embedding": {"pooling": "mean"}}},
)


@get("/info", opt=_INFO)
async def info(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Describe every model: engine, device, dtype, pooling and its source, prompts, kind of score, state."""
    fleet = fleet_of(request)
    models = [
        {**msgspec.to_builtins(about), **msgspec.to_builtins(state)}
        for about, state in zip(fleet.infos(), fleet.states(), strict=True)
    ]
    ours = {"name": _NAME, "version": version(_NAME), "models": models}
    default = next((found for task in _TASKS for found in fleet.infos() if task in found.tasks), None)
    return json_response({**ours, **msgspec.to_builtins(_tei_info(fleet, default))} if default else ours)


def _tei_info(fleet: Fleet, about: ModelInfo) -> TeiInfo:
    limits = fleet.limits_of(about.name)
    return TeiInfo(
        model_id=about.name,
        model_sha=about.revision,
        model_dtype=about.dtype,
        served_model_name=about.name,
        model_type=_model_type(about),
        max_concurrent_requests=max(limits.queue_tokens // about.max_tokens, 1),
        max_input_length=about.max_tokens,
        max_batch_tokens=limits.batch_tokens,
        auto_truncate=limits.on_overflow == "truncate",
    )


def _model_type(about: ModelInfo) -> ModelType:
    if not {"embed", "multi_vector", "sparse"}.isdisjoint(about.tasks):
        other = "splade" if "sparse" in about.tasks else "none"
        return ModelType(embedding=Pooling(about.pooling or other))
    names = about.labels or ("LABEL_0",)
    labels = Labels({str(at): name for at, name in enumerate(names)}, {name: at for at, name in enumerate(names)})
    return ModelType(reranker=labels) if "rank" in about.tasks else ModelType(classifier=labels)
