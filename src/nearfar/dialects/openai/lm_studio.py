"""LM Studio's list of models, from which its clients choose one of the type ``embeddings``."""

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


_LIST = route_docs("The served models, for LM Studio's clients", reply=LmStudioModelsReply, headers=USUAL_HEADERS)
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


def _model(request: AnyRequest, info: ModelInfo, name: str) -> LmStudioModelReply:
    owner, slash, _ = info.name.partition("/")
    is_loaded = any(state.name == info.name and state.state == "loaded" for state in fleet_of(request).states())
    return LmStudioModelReply(
        id=name,
        type="embeddings" if "embed" in info.tasks else info.tasks[0],
        publisher=owner if slash else "nearfar",
        arch=info.architecture,
        quantization=info.dtype,
        state="loaded" if is_loaded else "not-loaded",
        max_context_length=info.max_tokens,
        loaded_context_length=info.max_tokens if is_loaded else UNSET,
    )
