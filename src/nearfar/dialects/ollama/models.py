"""Ollama's routes about models: list, describe, pull and unload.

A pull of a served model has nothing to do. Routes that would change the served models, such as /api/create, don't
exist: the settings decide which models are served.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed_version
from typing import Any

import msgspec
from litestar import Request, Response, get, post, route

from nearfar.core.errors import InputError, ModelNotFound
from nearfar.core.types import ModelInfo, ModelState, Task
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import AnyRequest, caller_of, cancel_on_disconnect, fleet_of, read_request
from nearfar.dialects.ollama.bodies import (
    Details,
    GenerateRequest,
    ListedModel,
    LoadedModel,
    ModelRequest,
    PsReply,
    ShowReply,
    StatusReply,
    TagsReply,
    UnloadReply,
    VersionReply,
    is_zero,
    require_model,
)
from nearfar.dialects.ollama.errors import SUPPORTED
from nearfar.dialects.ollama.route_docs import CHAT, GENERATE, OLLAMA_VERSION, PS, PULL, SHOW, TAGS, VERSION

_FOREVER = timedelta(microseconds=(2**63 - 1) // 1000)  # as Ollama's own, for a model that is never unloaded
_PRECISIONS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "INT8", "auto": "unknown"}
_CLASS_SUFFIX = re.compile(r"(Model|For[A-Z]\w*|LMHeadModel)$")
_CAPABILITIES: dict[Task, str] = {"embed": "embedding", "rank": "rerank"}  # "rerank" is an addition
_model = msgspec.json.Decoder(ModelRequest)
_generate = msgspec.json.Decoder(GenerateRequest)


@route("/api/version", http_method=["GET", "HEAD"], status_code=200, opt=VERSION)
async def version() -> Response[bytes]:
    return json_response(VersionReply(OLLAMA_VERSION, f"nearfar {installed_version('nearfar')}"))


@route("/api/tags", http_method=["GET", "HEAD"], status_code=200, opt=TAGS)
async def tags(request: Request[Any, Any, Any]) -> Response[bytes]:
    fleet = fleet_of(request)
    fleet.refuse_unready()
    return json_response(TagsReply([_listed(info, name) for info in fleet.infos() for name in _tagged_names(info)]))


@get("/api/ps", opt=PS)
async def ps(request: Request[Any, Any, Any]) -> Response[bytes]:
    fleet = fleet_of(request)
    models = zip(fleet.infos(), fleet.states(), strict=True)
    return json_response(PsReply([_loaded(info, state) for info, state in models if state.state == "loaded"]))


@post("/api/show", status_code=200, opt=SHOW)
async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _model)
    info = fleet_of(request).describe(require_model(body.model or body.name))
    family = _family(info)
    facts: dict[str, str | int | None] = {
        "general.architecture": family,
        "general.basename": info.name,
        "general.parameter_count": info.parameters,
        f"{family}.context_length": info.max_tokens,
        f"{family}.embedding_length": info.dim or None,
    }
    reply = ShowReply(
        modelfile=f"FROM {info.name}",
        parameters=f"{'num_ctx':<30} {info.max_tokens}",
        details=_details(info),
        model_info={key: value for key, value in facts.items() if value is not None},
        capabilities=[word for task, word in _CAPABILITIES.items() if task in info.tasks],
        modified_at=_rfc3339(datetime.fromtimestamp(info.created, UTC)),
    )
    return json_response(reply)


@post("/api/pull", status_code=200, opt=PULL)
async def pull(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer in one line, which is a complete stream as well."""
    body = await read_request(request, _model)
    try:
        fleet_of(request).describe(require_model(body.model or body.name))
    except ModelNotFound as error:
        raise InputError(f'model "{error.model}" is not served here; add it to the models of nearfar serve') from error
    return json_response(StatusReply("success"))


@post("/api/generate", status_code=200, opt=GENERATE)
async def generate(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _unload(request, "generate")


@post("/api/chat", status_code=200, opt=CHAT)
async def chat(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _unload(request, "chat")


async def _unload(request: AnyRequest, verb: str) -> Response[bytes]:
    """Unload the model if the request has no input and a ``keep_alive`` of 0. Raises InputError otherwise."""
    body = await read_request(request, _generate)
    model = require_model(body.model or body.name)
    if body.prompt or body.messages or not is_zero(body.keep_alive):
        raise InputError(f'"{model[:200]}" does not support {verb}; {SUPPORTED}')
    caller_of(request.scope).require_scope("admin")
    await cancel_on_disconnect(request, fleet_of(request).unload(model))
    return json_response(UnloadReply(model=model, created_at=_rfc3339(datetime.now(UTC))))


def _tagged_names(info: ModelInfo) -> list[str]:
    """Return the model's names with a tag, as Ollama lists them: clients append ``:latest`` to names without one."""
    return [name if ":" in name else f"{name}:latest" for name in (info.name, *info.aliases)]


def _listed(info: ModelInfo, name: str) -> ListedModel:
    return ListedModel(
        name=name,
        model=name,
        modified_at=_rfc3339(datetime.fromtimestamp(info.created, UTC)),
        size=info.file_bytes,
        digest=_digest(info),
        details=_details(info),
    )


def _loaded(info: ModelInfo, state: ModelState) -> LoadedModel:
    stays = _FOREVER if state.closes_in_s is None else timedelta(seconds=state.closes_in_s)
    return LoadedModel(
        name=_tagged_names(info)[0],
        model=_tagged_names(info)[0],
        size=state.bytes,
        digest=_digest(info),
        details=_details(info),
        expires_at=_rfc3339(datetime.now(UTC) + stays),
        size_vram=0 if info.device == "cpu" else state.bytes,
        context_length=info.max_tokens,
    )


def _details(info: ModelInfo) -> Details:
    family = _family(info)
    return Details(
        family=family,
        families=[family],
        parameter_size=_format_count(info.parameters),
        quantization_level=_PRECISIONS.get(info.dtype, info.dtype.upper()),
    )


def _family(info: ModelInfo) -> str:
    """Return the architecture as Ollama names it: ``bert`` for BertModel, ``qwen3`` for Qwen3ForCausalLM."""
    return _CLASS_SUFFIX.sub("", info.architecture).lower() or info.architecture.lower()


def _digest(info: ModelInfo) -> str:
    """Hash the model's name and revision to 64 digits, as in Ollama; a folder without a revision counts by its size."""
    return hashlib.sha256(f"{info.name}@{info.revision or info.file_bytes}".encode()).hexdigest()


def _format_count(count: int | None) -> str:
    if count is None:
        return "unknown"
    billion, million = 1_000_000_000, 1_000_000
    return f"{count / billion:.1f}B" if count >= billion else f"{count / million:.2f}M"


def _rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
