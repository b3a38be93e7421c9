"""What Ollama does and this server doesn't, said so that its clients show why; and the little of it that is true here.

A pull of a model that is served has nothing left to do, and an order to close a model is obeyed. What would change
the models, such as /api/create, has no route: which there are is set where the server is started.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, post

from nearfar.core.errors import InputError, ModelNotFound
from nearfar.dialects.kit.base import fleet_of, json_response
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.request import cancel_on_disconnect, read_request
from nearfar.dialects.kit.route_docs import requires, requires_any, route_docs
from nearfar.dialects.ollama.bodies import NAMED, ModelRequest, StatusReply, UnloadReply, WorkRequest, is_nothing, named
from nearfar.dialects.ollama.errors import ONLY

if TYPE_CHECKING:
    from nearfar.dialects.kit.base import AnyRequest

_work = msgspec.json.Decoder(WorkRequest)
_model = msgspec.json.Decoder(ModelRequest)
_CLOSE: dict[str, Any] = {
    "body": requires_any(requires(WorkRequest, keep_alive={"enum": [0, "0", "0s", "0m"]}), *NAMED),
    "reply": UnloadReply,
    "example": {"model": "sentence-transformers/all-MiniLM-L6-v2", "keep_alive": 0},
    "reply_example": {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "created_at": "2026-11-24T16:00:00Z",
        "response": "",
        "done": True,
        "done_reason": "unload",
    },
    "counts": False,
}


@post("/api/generate", status_code=200, opt=route_docs("Close a model; nothing is generated here", **_CLOSE))
async def generate(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _close_or_refuse(request, "generate")


@post("/api/chat", status_code=200, opt=route_docs("Close a model; nobody chats here", **_CLOSE))
async def chat(request: Request[Any, Any, Any]) -> Response[bytes]:
    return await _close_or_refuse(request, "chat")


@post(
    "/api/pull",
    status_code=200,
    opt=route_docs(
        "See that a model is served",
        body=requires_any(ModelRequest, *NAMED),
        reply=StatusReply,
        example={"model": "sentence-transformers/all-MiniLM-L6-v2"},
        reply_example={"status": "success"},
        counts=False,
    ),
)
async def pull(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer in one line, which is a whole stream as well."""
    body = await read_request(request, _model)
    name = named(body.model or body.name)
    try:
        fleet_of(request).describe(name)
    except ModelNotFound as error:
        raise InputError(f'model "{error.model}" is not served here; add it to the models of nearfar serve') from error
    return json_response(StatusReply("success"))


async def _close_or_refuse(request: AnyRequest, verb: str) -> Response[bytes]:
    body = await read_request(request, _work)
    model = named(body.model or body.name)
    if body.prompt or body.messages or not is_nothing(body.keep_alive):
        raise InputError(f'"{model[:200]}" does not support {verb}; {ONLY}')
    caller_of(request.scope).require_scope("admin")
    await cancel_on_disconnect(request, fleet_of(request).unload(model))
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json_response(UnloadReply(model=model, created_at=now))
