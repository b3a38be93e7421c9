"""GET /info: every served model, and the default one as Text Embeddings Inference describes its only one."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, get_type_hints

import msgspec
from litestar import Request, Response, get
from msgspec import UNSET, Struct, UnsetType

from nearfar.core.settings import Settings
from nearfar.core.types import ModelInfo, ModelState, Task
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import fleet_of, settings_of
from nearfar.dialects.kit.route_docs import json_schema, route_docs
from nearfar.serving.pipeline.encoding import WORKERS
from nearfar.serving.registry.fleet import Fleet

ServedModel = msgspec.defstruct(
    "ServedModel",
    [*{**get_type_hints(ModelInfo), **get_type_hints(ModelState)}.items()],
    namespace={"__doc__": "A served model, and whether it is loaded."},
)


class Pooling(Struct):
    """An embedding model's pooling."""

    pooling: str


class Labels(Struct):
    """A classifier's labels; a reranker has one."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(Struct, kw_only=True):
    """A model's type: one of these fields is set."""

    embedding: Pooling | UnsetType = UNSET
    reranker: Labels | UnsetType = UNSET
    classifier: Labels | UnsetType = UNSET


class TeiInfo(Struct, kw_only=True):
    """The default model as TEI describes its only one.

    ``max_concurrent_requests`` is the number of inputs of the greatest length that fit into the queue.
    ``max_batch_tokens`` is null while the model isn't loaded.
    """

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int | None
    max_batch_requests: None = None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int = WORKERS
    sha: None = None
    docker_label: None = None


class StartupInfoReply(Struct, kw_only=True):
    """The body of GET /info before the models' files are read."""

    name: str
    version: str
    models: Annotated[list[ServedModel], json_schema(maxItems=0)]  # type: ignore[valid-type]


class InfoReply(TeiInfo, kw_only=True):
    """The body of GET /info."""

    name: str
    version: str
    models: list[ServedModel]  # type: ignore[valid-type]


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
    return json_response(
        {**ours, **msgspec.to_builtins(_tei_info(fleet, default, settings_of(request)))} if default else ours
    )


def _tei_info(fleet: Fleet, about: ModelInfo, settings: Settings) -> TeiInfo:
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
        max_client_batch_size=settings.max_inputs,
        auto_truncate=limits.on_overflow == "truncate",
    )


def _model_type(about: ModelInfo) -> ModelType:
    if not {"embed", "multi_vector", "sparse"}.isdisjoint(about.tasks):
        other = "splade" if "sparse" in about.tasks else "none"
        return ModelType(embedding=Pooling(about.pooling or other))
    names = about.labels or ("LABEL_0",)
    labels = Labels({str(at): name for at, name in enumerate(names)}, {name: at for at, name in enumerate(names)})
    return ModelType(reranker=labels) if "rank" in about.tasks else ModelType(classifier=labels)
