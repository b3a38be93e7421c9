"""Ollama's routes about models: list and describe."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed_version
from typing import Any

from litestar import Request, Response, get, route
from msgspec import Struct

from nearfar.core.errors import ModelNotReady
from nearfar.core.types import ModelInfo, ModelState, Task
from nearfar.dialects.kit.endpoint import Endpoint, json_response
from nearfar.dialects.kit.request import fleet_of
from nearfar.dialects.kit.route_docs import RouteDocs, route_docs
from nearfar.dialects.ollama.unload import BY_NAME, ModelRequest, name_of, rfc3339
from nearfar.serving.service import Service


class VersionReply(Struct):
    """The body of GET /api/version: the release of Ollama that the routes follow, and this server's own version."""

    version: str
    server: str


class Details(Struct, kw_only=True):
    """A model's format, architecture, size and precision."""

    parent_model: str = ""
    format: str = "safetensors"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(Struct, kw_only=True):
    """A served model. ``digest`` is a hash of its name and revision, ``size`` its bytes on disk."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class TagsReply(Struct):
    """The body of GET /api/tags."""

    models: list[ListedModel]


class LoadedModel(Struct, kw_only=True):
    """A model in memory. ``size_vram`` is its size if it runs on a GPU, otherwise 0."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class PsReply(Struct):
    """The body of GET /api/ps."""

    models: list[LoadedModel]


class ShowReply(Struct, kw_only=True):
    """The body of POST /api/show."""

    modelfile: str
    parameters: str
    template: str = "{{ .Prompt }}"
    license: str = ""  # none of the files that are read names it
    details: Details
    model_info: dict[str, str | int]
    capabilities: list[str]
    modified_at: str


# The release of Ollama that the routes follow. Clients read it to find out whether /api/embed exists (0.3) and accepts
# dimensions; a version number of this server would look like an Ollama without both.
OLLAMA_VERSION = "0.13.0"
_VERSION = route_docs(
    "Report the release of Ollama that the routes follow",
    reply=VersionReply,
    reply_example={"version": OLLAMA_VERSION, "server": "nearfar 0.1.0"},
)
_TAGS = route_docs("List the served models", reply=TagsReply, raises=(ModelNotReady,))
_PS = route_docs("List the models in memory", reply=PsReply)

_FOREVER = timedelta(microseconds=(2**63 - 1) // 1000)  # as Ollama's own, for a model that is never unloaded
_PRECISIONS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "INT8", "auto": "unknown"}
_CLASS_SUFFIX = re.compile(r"(Model|For[A-Z]\w*|LMHeadModel)$")
_CAPABILITIES: dict[Task, str] = {"embed": "embedding", "rank": "rerank"}  # "rerank" is an addition


@route("/api/version", http_method=["GET", "HEAD"], status_code=200, opt=_VERSION)
async def version() -> Response[bytes]:
    return json_response(VersionReply(OLLAMA_VERSION, f"nearfar {installed_version('nearfar')}"))


@route("/api/tags", http_method=["GET", "HEAD"], status_code=200, opt=_TAGS)
async def tags(request: Request[Any, Any, Any]) -> Response[bytes]:
    fleet = fleet_of(request)
    fleet.refuse_unready()
    return json_response(TagsReply([_listed(info, name) for info in fleet.infos() for name in _tagged_names(info)]))


@get("/api/ps", opt=_PS)
async def ps(request: Request[Any, Any, Any]) -> Response[bytes]:
    fleet = fleet_of(request)
    models = zip(fleet.infos(), fleet.states(), strict=True)
    return json_response(PsReply([_loaded(info, state) for info, state in models if state.state == "loaded"]))


def _show(_: ModelRequest, __: str, info: ModelInfo) -> ShowReply:
    family = _family(info)
    facts: dict[str, str | int | None] = {
        "general.architecture": family,
        "general.basename": info.name,
        "general.parameter_count": info.parameters,
        f"{family}.context_length": info.max_tokens,
        f"{family}.embedding_length": info.dim or None,
    }
    return ShowReply(
        modelfile=f"FROM {info.name}",
        parameters=f"{'num_ctx':<30} {info.max_tokens}",
        details=_details(info),
        model_info={key: value for key, value in facts.items() if value is not None},
        capabilities=[word for task, word in _CAPABILITIES.items() if task in info.tasks],
        modified_at=rfc3339(datetime.fromtimestamp(info.created, UTC)),
    )


_SHOW = RouteDocs(summary="Describe a model", answers=("descriptions",), **BY_NAME, reply=ShowReply)
SHOW = Endpoint(_SHOW, name_of, Service.describe, _show)


def _tagged_names(info: ModelInfo) -> list[str]:
    """Return the model's names with a tag, as Ollama lists them: clients append ``:latest`` to names without one."""
    return [name if ":" in name else f"{name}:latest" for name in (info.name, *info.aliases)]


def _listed(info: ModelInfo, name: str) -> ListedModel:
    return ListedModel(
        name=name,
        model=name,
        modified_at=rfc3339(datetime.fromtimestamp(info.created, UTC)),
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
        expires_at=rfc3339(datetime.now(UTC) + stays),
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
