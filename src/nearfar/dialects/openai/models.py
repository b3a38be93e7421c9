"""The list of models in OpenAI's and Cohere's format at once: both have it at GET /v1/models.

OpenAI's clients read ``data``, Cohere's ``models``; an item has the keys of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath
from msgspec import UNSET, Meta, Struct, UnsetType

from nearfar.core.errors import InputError
from nearfar.core.types import ModelInfo, Task
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import AnyRequest, fleet_of
from nearfar.dialects.kit.route_docs import json_schema, route_docs
from nearfar.dialects.openai.headers import USUAL_HEADERS, usual_headers
from nearfar.serving.registry.fleet import Fleet

_ENDPOINTS: dict[Task, str] = {"embed": "embed", "rank": "rerank", "classify": "classify"}  # Cohere's names
_Endpoint = Annotated[str, json_schema(enum=list(_ENDPOINTS.values()), description="only models that can do this")]
_MANY = 999_999_999


class ModelReply(Struct, kw_only=True):
    """One model: OpenAI's keys, then what its numbers mean (``/info`` has the rest), then Cohere's keys.

    ``tokenizer_url`` is null so that Cohere's clients call /v1/tokenize.
    """

    id: Annotated[str, json_schema(examples=["sentence-transformers/all-MiniLM-L6-v2"])]
    object: str = "model"
    created: int
    owned_by: str
    score: str
    score_is_probability: bool
    int8_range: float | None
    name: str
    endpoints: list[str]
    default_endpoints: list[str]
    context_length: int
    tokenizer_url: None = None
    finetuned: bool = False
    is_deprecated: bool = False


class QueueStats(Struct, kw_only=True):
    """What waits for a model or runs: the share of the queue, and requests."""

    queue_fraction: float = 0.0
    queue_absolute: int = 0
    results_pending: int = 0


class InfinityModelReply(ModelReply, kw_only=True):
    """One model at GET /models, where Infinity's clients also require these, and its name as the owner."""

    owned_by: Annotated[str, json_schema(const="infinity")] = "infinity"
    stats: QueueStats
    backend: str
    capabilities: list[str]


class ModelsReply(Struct, kw_only=True, omit_defaults=True):
    """The body of GET /v1/models. Cohere's parameters apply to ``models``; ``data`` is always everything."""

    object: Annotated[str, json_schema(const="list")]
    data: list[ModelReply]
    models: list[ModelReply]
    next_page_token: str | UnsetType = UNSET


class InfinityModelsReply(ModelsReply, kw_only=True):
    """The body of GET /models."""

    data: list[InfinityModelReply]  # type: ignore[assignment]  # of a subclass


class Selection(Struct, kw_only=True):
    """The query of GET /v1/models, as in Cohere's protocol. An empty value means absent."""

    endpoint: _Endpoint | UnsetType = UNSET
    default_only: Annotated[bool, Meta(description="only models that answer requests without a model")] = False
    page_size: Annotated[int, Meta(ge=1, le=_MANY, description="how many models a page has; all where absent")] = _MANY
    page_token: Annotated[int, Meta(ge=0, le=_MANY, description="the last page's next_page_token")] = 0


_LIST = route_docs(
    "The served models, for clients of OpenAI and of Cohere",
    reply=ModelsReply,
    query=msgspec.json.schema(Selection)["$defs"]["Selection"]["properties"],
    headers=USUAL_HEADERS,
)
_LIST_FOR_INFINITY = route_docs(
    "The same, for clients of Infinity as well",
    reply=InfinityModelsReply,
    query=_LIST["docs"].query,
    headers=USUAL_HEADERS,
)
_GET = route_docs(
    "One served model", reply=ModelReply, path={"model_id": "text-embedding-3-small"}, headers=USUAL_HEADERS
)


@get(["/v1/models", "/v1/v1/models", "/openai/v1/models", "/openai/models"], opt=_LIST)
async def list_models(request: Request[Any, Any, Any]) -> Response[bytes]:
    return json_response(_list(request), headers=usual_headers(request))


@get("/models", opt=_LIST_FOR_INFINITY)
async def list_infinity_models(request: Request[Any, Any, Any]) -> Response[bytes]:
    reply = _list(request)
    data = [_infinity_model(fleet_of(request), model) for model in reply.data]
    return json_response(msgspec.structs.replace(reply, data=data), headers=usual_headers(request))


@get(["/v1/models/{model_id:path}", "/models/{model_id:path}", "/v1/v1/models/{model_id:path}"], opt=_GET)
async def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[bytes]:
    """Return one model. A slash in its name may be encoded, as by OpenAI's clients, or not, as by Cohere's."""
    name, fleet = model_id.removeprefix("/"), fleet_of(request)
    found = _model(fleet.describe(name), name, _defaults(fleet))
    return json_response(found, headers=usual_headers(request))


def _list(request: AnyRequest) -> ModelsReply:
    """Return every model under each of its names."""
    fleet = fleet_of(request)
    fleet.refuse_unready()
    defaults = _defaults(fleet)
    listed = [_model(info, name, defaults) for info in fleet.infos() for name in (info.name, *info.aliases)]
    models, next_page_token = _select(_selection(request), listed)
    return ModelsReply(object="list", data=listed, models=models, next_page_token=next_page_token)


def _defaults(fleet: Fleet) -> dict[Task, str]:
    """Return the default model's name for each task."""
    found = {task: fleet.default(task) for task in _ENDPOINTS}
    return {task: info.name for task, info in found.items() if info}


def _model(info: ModelInfo, name: str, defaults: Mapping[Task, str]) -> ModelReply:
    owner, slash, _ = info.name.partition("/")
    return ModelReply(
        id=name,
        created=info.created,
        owned_by=owner if slash else "nearfar",
        score=info.score,
        score_is_probability=info.score_is_probability,
        int8_range=info.int8_range,
        name=name,
        endpoints=[_ENDPOINTS[task] for task in info.tasks if task in _ENDPOINTS],
        default_endpoints=[_ENDPOINTS[task] for task, default in defaults.items() if default == info.name],
        context_length=info.max_tokens,
    )


def _infinity_model(fleet: Fleet, model: ModelReply) -> InfinityModelReply:
    info = fleet.describe(model.id)
    stats = QueueStats()
    if capacity := fleet.queue_capacity(info.name):
        running = capacity.requests_limit - capacity.requests_free
        filled = 1 - capacity.tokens_free / capacity.tokens_limit
        stats = QueueStats(queue_fraction=filled, queue_absolute=running, results_pending=running)
    fields = msgspec.structs.asdict(model) | {"owned_by": "infinity"}
    return InfinityModelReply(**fields, stats=stats, backend=info.engine, capabilities=model.endpoints)


def _selection(request: AnyRequest) -> Selection:
    sent = {name: value for name, value in request.query_params.items() if value}
    try:
        return msgspec.convert(sent, Selection, strict=False)
    except msgspec.ValidationError as error:
        name = str(error).split("`")[-2].removeprefix("$.")
        fault = "must be true or false, not {}" if name == "default_only" else "can't be {!r}"
        raise InputError(f"{name} {fault.format(sent[name][:50])}", name) from error


def _select(wanted: Selection, listed: list[ModelReply]) -> tuple[list[ModelReply], str | UnsetType]:
    """Return a page of the models that serve the endpoint, with ``default_only`` as its default.

    The next page's token is the number of models before that page.
    """
    found = []
    for model in listed:
        served = model.default_endpoints if wanted.default_only else model.endpoints
        if wanted.endpoint in served or (not wanted.endpoint and (served or not wanted.default_only)):
            found.append(model)
    stop = wanted.page_token + wanted.page_size
    return found[wanted.page_token : stop], str(stop) if stop < len(found) else UNSET
