"""Ollama's pull, which has nothing to do here, and its generation and chat, which can only unload a model.

Routes that would change the served models, such as /api/create, don't exist: the settings decide which are served.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from msgspec import Struct

from nearfar.core.caller import Caller
from nearfar.core.errors import InputError, ModelNotFound
from nearfar.core.types import ModelInfo, ModelState
from nearfar.dialects.kit.checks import require_model
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.route_docs import NOT_EMPTY, RouteDocs, json_schema, requires, requires_any
from nearfar.dialects.ollama.errors import SUPPORTED
from nearfar.serving.service import Service

_ZERO_DURATION = re.compile(r"0+(\.0+)?([a-zµ]+)?")  # "0", "0s", "0m"
KeepAlive = float | str


def is_zero(keep_alive: KeepAlive | None) -> bool:
    """Return whether the model is to be unloaded at once."""
    if isinstance(keep_alive, str):
        return bool(_ZERO_DURATION.fullmatch(keep_alive))
    return keep_alive == 0


class ModelRequest(Struct, kw_only=True):
    """The body of a request about a model; older clients send ``name``."""

    model: str | None = None
    name: str | None = None


class GenerateRequest(ModelRequest, kw_only=True):
    """The body of POST /api/generate and /api/chat, as far as it can unload a model."""

    prompt: Annotated[str, json_schema(maxLength=0)] | None = None
    messages: Annotated[list[Any], json_schema(maxItems=0)] | None = None
    keep_alive: KeepAlive | None = None


class UnloadReply(Struct, kw_only=True):
    """The body of the answer to a request that unloads a model."""

    model: str
    created_at: str
    response: str = ""
    done: bool = True
    done_reason: str = "unload"


class StatusReply(Struct):
    """The last line of the answer to a pull."""

    status: str


MODEL_EXAMPLE = "sentence-transformers/all-MiniLM-L6-v2"
BY_NAME: dict[str, Any] = {
    "body": requires_any(ModelRequest, {"model": NOT_EMPTY}, {"name": NOT_EMPTY}),
    "example": {"model": MODEL_EXAMPLE},
    "counts": False,
}
_UNLOAD = RouteDocs(
    summary="Unload a model; generation and chat are not supported",
    answers=("changes",),
    details="Unloads the model if the request has no input and a ``keep_alive`` of 0. Anything else is refused.",
    body=requires_any(
        requires(GenerateRequest, keep_alive={"enum": [0, "0", "0s", "0m"]}), {"model": NOT_EMPTY}, {"name": NOT_EMPTY}
    ),
    reply=UnloadReply,
    example={"model": MODEL_EXAMPLE, "keep_alive": 0},
    counts=False,
)
_PULL = RouteDocs(
    details="The answer is one line, which is a complete stream as well.",
    summary="Check that a model is served",
    answers=("descriptions",),
    **BY_NAME,
    reply=StatusReply,
    reply_example={"status": "success"},
)


def rfc3339(time: datetime) -> str:
    """Format a time as in RFC 3339."""
    return time.isoformat().replace("+00:00", "Z")


def name_of(body: ModelRequest) -> str:
    """Return the model's name. Raises ModelRequired."""
    return require_model(body.model or body.name)


async def _find(service: Service, model: str, caller: Caller) -> ModelInfo:
    try:
        return await service.describe(model, caller)
    except ModelNotFound as error:
        raise InputError(f'model "{error.model}" is not served here; add it to the models of nearfar serve') from error


PULL = Endpoint(_PULL, name_of, _find, lambda _, __, ___: StatusReply("success"))


def _check_unload(verb: str, body: GenerateRequest) -> str:
    """Return the model. Raises InputError unless the request has no input and a ``keep_alive`` of 0."""
    model = name_of(body)
    if body.prompt or body.messages or not is_zero(body.keep_alive):
        raise InputError(f'"{model[:200]}" does not support {verb}; {SUPPORTED}')
    return model


def _unload_reply(_: GenerateRequest, model: str, __: ModelState) -> UnloadReply:
    return UnloadReply(model=model, created_at=rfc3339(datetime.now(UTC)))


GENERATE, CHAT = (
    Endpoint(_UNLOAD, partial(_check_unload, verb), Service.unload, _unload_reply) for verb in ("generate", "chat")
)
