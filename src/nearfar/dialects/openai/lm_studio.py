"""LM Studio's lists of models, from which its clients choose one of the type ``embeddings``, or ``embedding`` in v1."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.params import FromPath
from msgspec import UNSET, Struct, UnsetType

from nearfar.core.types import ModelInfo
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import AnyRequest, fleet_of
from nearfar.dialects.kit.route_docs import json_schema, route_docs
from nearfar.dialects.openai.headers import USUAL_HEADERS, usual_headers


class LmStudioModelReply(Struct, kw_only=True):
    """One model. LM Studio has only the type ``embeddings``; other models have their first task."""

    id: Annotated[str, json_schema(examples=["sentence-transformers/all-MiniLM-L6-v2"])]
    object: str = "model"
    type: str
    publisher: str
    arch: str
    compatibility_type: str = "safetensors"
    quantization: str
    state: Annotated[str, json_schema(enum=["loaded", "not-loaded"])]
    max_context_length: int
    loaded_context_length: int | UnsetType = UNSET


class LmStudioModelsReply(Struct, kw_only=True):
    """The body of GET /api/v0/models."""

    object: str = "list"
    data: list[LmStudioModelReply]


class Quantization(Struct, kw_only=True):
    """The precision that a model is computed in."""

    name: str
    bits_per_weight: int | None


class InstanceConfig(Struct):
    """How a loaded model runs."""

    context_length: int


class LoadedInstance(Struct):
    """A model in memory."""

    id: str
    config: InstanceConfig


class LmStudioModelReplyV1(Struct, kw_only=True):
    """One model in v1. LM Studio leaves ``architecture`` out for embeddings; its formats are GGUF and MLX."""

    type: str
    publisher: str
    key: str
    display_name: str
    architecture: str
    quantization: Quantization
    size_bytes: int
    params_string: str | None
    loaded_instances: list[LoadedInstance]
    max_context_length: int
    format: None = None


class LmStudioModelsReplyV1(Struct):
    """The body of GET /api/v1/models."""

    models: list[LmStudioModelReplyV1]


_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8}
_LIST = route_docs("The served models, for LM Studio's clients", reply=LmStudioModelsReply, headers=USUAL_HEADERS)
_LIST_V1 = route_docs(
    "The served models, for newer clients of LM Studio", reply=LmStudioModelsReplyV1, headers=USUAL_HEADERS
)
_GET = route_docs(
    "One served model, for LM Studio's clients",
    reply=LmStudioModelReply,
    path={"model_id": "sentence-transformers/all-MiniLM-L6-v2"},
    headers=USUAL_HEADERS,
)


@get("/api/v0/models", opt=_LIST)
async def list_lm_studio_models(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return every model under each of its names."""
    fleet = fleet_of(request)
    fleet.refuse_unready()
    listed = [_model(request, info, name) for info in fleet.infos() for name in (info.name, *info.aliases)]
    return json_response(LmStudioModelsReply(data=listed), headers=usual_headers(request))


@get("/api/v0/models/{model_id:path}", opt=_GET)
async def get_lm_studio_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[bytes]:
    name = model_id.removeprefix("/")
    found = _model(request, fleet_of(request).describe(name), name)
    return json_response(found, headers=usual_headers(request))


@get("/api/v1/models", opt=_LIST_V1)
async def list_lm_studio_models_v1(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return every model under each of its names."""
    fleet = fleet_of(request)
    fleet.refuse_unready()
    listed = [_model_v1(request, info, name) for info in fleet.infos() for name in (info.name, *info.aliases)]
    return json_response(LmStudioModelsReplyV1(listed), headers=usual_headers(request))


def _model(request: AnyRequest, info: ModelInfo, name: str) -> LmStudioModelReply:
    is_loaded = _is_loaded(request, info)
    return LmStudioModelReply(
        id=name,
        type="embeddings" if "embed" in info.tasks else info.tasks[0],
        publisher=_publisher(info),
        arch=info.architecture,
        quantization=info.dtype,
        state="loaded" if is_loaded else "not-loaded",
        max_context_length=info.max_tokens,
        loaded_context_length=info.max_tokens if is_loaded else UNSET,
    )


def _model_v1(request: AnyRequest, info: ModelInfo, name: str) -> LmStudioModelReplyV1:
    instances = [LoadedInstance(name, InstanceConfig(info.max_tokens))] if _is_loaded(request, info) else []
    return LmStudioModelReplyV1(
        type="embedding" if "embed" in info.tasks else info.tasks[0],
        publisher=_publisher(info),
        key=name,
        display_name=name.rpartition("/")[2],
        architecture=info.architecture,
        quantization=Quantization(name=info.dtype, bits_per_weight=_BITS.get(info.dtype)),
        size_bytes=info.file_bytes,
        params_string=None if info.parameters is None else f"{info.parameters / 1e6:.0f}M",
        loaded_instances=instances,
        max_context_length=info.max_tokens,
    )


def _publisher(info: ModelInfo) -> str:
    owner, slash, _ = info.name.partition("/")
    return owner if slash else "nearfar"


def _is_loaded(request: AnyRequest, info: ModelInfo) -> bool:
    return any(state.name == info.name and state.state == "loaded" for state in fleet_of(request).states())
