"""What Ollama tells about models: which there are, what each is, and which are in memory."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, get, post, route
from msgspec import Struct

from nearfar.core.errors import ModelNotReady
from nearfar.dialects.kit.base import fleet_of, json_response
from nearfar.dialects.kit.request import read_request
from nearfar.dialects.kit.route_docs import requires_any, route_docs
from nearfar.dialects.ollama.bodies import NAMED, ModelRequest, named

if TYPE_CHECKING:
    from nearfar.core.types import ModelInfo, ModelState, Task

# The release of Ollama whose routes these are. Clients ask for it to see whether /api/embed is there (0.3) and
# takes dimensions; a number of our own would be taken for an Ollama older than both.
_SPOKEN = "0.13.0"
_NEVER = timedelta(microseconds=(2**63 - 1) // 1000)  # what Ollama adds to now for a model that is kept for ever
_LEVELS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "INT8", "auto": "unknown"}
_HEAD = re.compile(r"(Model|For[A-Z]\w*|LMHeadModel)$")
_CAPABILITIES: dict[Task, str] = {"embed": "embedding", "rank": "rerank"}  # the second is ours


class VersionReply(Struct):
    """The body of GET /api/version: the release of Ollama whose routes these are, and what answers in truth."""

    version: str
    server: str


class Details(Struct, kw_only=True):
    """What kind of model it is, in Ollama's words."""

    parent_model: str = ""
    format: str = "safetensors"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Listed(Struct, kw_only=True):
    """One model. ``digest`` is a hash of which model it is and at which revision, ``size`` its bytes on the disk."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class TagsReply(Struct):
    """The body of GET /api/tags."""

    models: list[Listed]


class Running(Struct, kw_only=True):
    """One model in memory. ``size_vram`` is its bytes where it runs on a device of its own."""

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

    models: list[Running]


class ShowReply(Struct, kw_only=True):
    """The body of POST /api/show."""

    modelfile: str
    parameters: str
    template: str = "{{ .Prompt }}"
    license: str = ""  # nothing of a checkpoint that is read here says it
    details: Details
    model_info: dict[str, str | int]
    capabilities: list[str]
    modified_at: str


_DETAILS = {
    "parent_model": "",
    "format": "safetensors",
    "family": "bert",
    "families": ["bert"],
    "parameter_size": "22.71M",
    "quantization_level": "F32",
}
_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_LISTED = {
    "name": f"{_NAME}:latest",
    "model": f"{_NAME}:latest",
    "modified_at": "2026-11-24T16:00:00Z",
    "size": 90868376,
    "digest": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "details": _DETAILS,
}
_RUNNING = {key: value for key, value in _LISTED.items() if key != "modified_at"} | {
    "expires_at": "2026-11-24T16:05:00Z",
    "size_vram": 0,
    "context_length": 256,
}
_SHOWN = {
    "modelfile": f"FROM {_NAME}",
    "parameters": "num_ctx                        256",
    "template": "{{ .Prompt }}",
    "license": "",
    "details": _DETAILS,
    "model_info": {"general.architecture": "bert", "bert.context_length": 256, "bert.embedding_length": 384},
    "capabilities": ["embedding", "rerank"],
    "modified_at": "2026-11-24T16:00:00Z",
}
_show = msgspec.json.Decoder(ModelRequest)


@route(
    "/api/version",
    http_method=["GET", "HEAD"],
    status_code=200,
    opt=route_docs(
        "The release of Ollama whose routes these are",
        reply=VersionReply,
        reply_example={"version": _SPOKEN, "server": "nearfar 0.1.0"},
    ),
)
async def version() -> Response[bytes]:
    return json_response(VersionReply(_SPOKEN, f"nearfar {installed('nearfar')}"))


@route(
    "/api/tags",
    http_method=["GET", "HEAD"],
    status_code=200,
    opt=route_docs(
        "The served models, as Ollama lists them",
        reply=TagsReply,
        reply_example={"models": [_LISTED]},
        raises=(ModelNotReady,),
    ),
)
async def tags(request: Request[Any, Any, Any]) -> Response[bytes]:
    fleet = fleet_of(request)
    fleet.refuse_unready()
    return json_response(TagsReply([_listed(info, name) for info in fleet.infos() for name in _names(info)]))


@get("/api/ps", opt=route_docs("The models in memory", reply=PsReply, reply_example={"models": [_RUNNING]}))
async def ps(request: Request[Any, Any, Any]) -> Response[bytes]:
    fleet = fleet_of(request)
    both = zip(fleet.infos(), fleet.states(), strict=True)
    return json_response(PsReply([_running(info, state) for info, state in both if state.state == "loaded"]))


@post(
    "/api/show",
    status_code=200,
    opt=route_docs(
        "What a model is",
        body=requires_any(ModelRequest, *NAMED),
        reply=ShowReply,
        example={"model": "sentence-transformers/all-MiniLM-L6-v2"},
        reply_example=_SHOWN,
        counts=False,
    ),
)
async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
    body = await read_request(request, _show)
    info = fleet_of(request).describe(named(body.model or body.name))
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


def _names(info: ModelInfo) -> list[str]:
    """Give the model's names with a tag, as Ollama lists them: clients put ``:latest`` behind one without."""
    return [name if ":" in name else f"{name}:latest" for name in (info.name, *info.aliases)]


def _listed(info: ModelInfo, name: str) -> Listed:
    return Listed(
        name=name,
        model=name,
        modified_at=_rfc3339(datetime.fromtimestamp(info.created, UTC)),
        size=info.file_bytes,
        digest=_digest(info),
        details=_details(info),
    )


def _running(info: ModelInfo, state: ModelState) -> Running:
    stays = _NEVER if state.closes_in_s is None else timedelta(seconds=state.closes_in_s)
    return Running(
        name=_names(info)[0],
        model=_names(info)[0],
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
        parameter_size=_human(info.parameters),
        quantization_level=_LEVELS.get(info.dtype, info.dtype.upper()),
    )


def _family(info: ModelInfo) -> str:
    """Name the architecture as Ollama would: ``bert`` of BertModel, ``qwen3`` of Qwen3ForCausalLM."""
    return _HEAD.sub("", info.architecture).lower() or info.architecture.lower()


def _digest(info: ModelInfo) -> str:
    """Hash what tells this model from every other, 64 digits as in Ollama.

    That is the name and the commit or hash of its files. Of a folder no revision is known, so its size stands for it.
    """
    return hashlib.sha256(f"{info.name}@{info.revision or info.file_bytes}".encode()).hexdigest()


def _human(count: int | None) -> str:
    if count is None:
        return "unknown"
    billion, million = 1_000_000_000, 1_000_000
    return f"{count / billion:.1f}B" if count >= billion else f"{count / million:.2f}M"


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
