"""Our own routes: health, what is served and how, the metrics, and models that come and go by order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, get_args

import msgspec
from litestar import Request, Response, get, post, route
from msgspec import UNSET
from prometheus_client import CONTENT_TYPE_LATEST

from nearfar.core import errors
from nearfar.core.jobs import RepresentJob
from nearfar.core.types import Output
from nearfar.dialects.kit.base import Dialect, encoded_response, fleet_of, json_response, record_usage, service_of
from nearfar.dialects.kit.caller_headers import caller_of
from nearfar.dialects.kit.rendering import encode_json, numbers
from nearfar.dialects.kit.request import cancel_on_disconnect, read_body, read_request
from nearfar.dialects.native import manual
from nearfar.dialects.native.bodies import (
    ErrorReply,
    Health,
    ModelOrder,
    RepresentReply,
    RepresentRequest,
    Sparse,
    TextRepresentation,
    TokenUsage,
)
from nearfar.dialects.native.described import DOCS, LIVE, LOAD, METRICS, OPENAPI, READY, REPRESENT, UNLOAD
from nearfar.dialects.native.info import info

if TYPE_CHECKING:
    from nearfar.core.jobs import Represented
    from nearfar.core.types import Representation
    from nearfar.dialects.kit.error_responses import WireError


_represent = msgspec.json.Decoder(RepresentRequest)
_decoder = msgspec.json.Decoder(ModelOrder)


@route(
    "/health/live",
    http_method=["GET", "HEAD"],
    status_code=200,
    opt={"public": True, **LIVE},
)
async def live() -> Response[bytes]:
    """Answer as long as the event loop turns."""
    return json_response(Health("live"))


@route(
    "/health/ready",
    http_method=["GET", "HEAD"],
    status_code=200,
    opt={"public": True, **READY},
)
async def ready(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer 200 once every model that the start is for has had a forward succeed, 503 before.

    And 503 again when a model's worker has died, or when one that was asked has given no answer for a while. One that
    was closed, or has never been asked for, changes nothing. It costs nothing: a model only runs for it while failing.
    """
    request.app.state.drain.refuse_if_draining()
    fleet_of(request).refuse_unready()
    return json_response(Health("ready"))


@get("/metrics", opt=METRICS)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give every metric in Prometheus' text form."""
    media_type = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")  # Litestar adds it
    return Response(request.app.state.metrics.render(), media_type=media_type)


@get(["/openapi.json", "/api-doc/openapi.json"], opt={"public": True, **OPENAPI})
async def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Describe every route, in OpenAPI 3.1."""
    return encoded_response(await asyncio.to_thread(request.app.state.documentation.json))


@get(["/docs", "/redoc"], opt={"public": True, **DOCS})
async def docs(request: Request[Any, Any, Any]) -> Response[str]:
    """Show the document to a person. The page has no scripts, and nothing that isn't in it."""
    documentation = request.app.state.documentation
    page = await asyncio.to_thread(documentation.page, str(request.base_url))
    return Response(page, media_type="text/html", headers={"content-security-policy": documentation.policy})


@post(
    "/represent",
    status_code=200,
    opt=REPRESENT,
)
async def represent(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give all that a model makes of texts, from one forward: a vector, one a token, sparse weights."""
    body = await read_request(request, _represent)
    texts = (body.input,) if isinstance(body.input, str) else tuple(body.input)
    job = RepresentJob(
        model=body.model or None,
        inputs=texts,
        outputs=tuple(body.outputs or ()),
        role=body.input_type,
        prompt=body.prompt_name,
    )
    done = await cancel_on_disconnect(request, service_of(request).represent(job, caller_of(request.scope)))
    wanted = set(body.outputs or get_args(Output))
    size = sum(_size(one) for one in done.texts)
    encoded = await encode_json(size, lambda: _represented(done, wanted))
    return encoded_response(encoded, headers=record_usage(request, done.model, len(texts), done.usage, done.timings))


def _size(one: Representation) -> int:
    return sum(
        array.size for array in (one.dense, one.multi_vector, one.sparse and one.sparse.values) if array is not None
    )


def _represented(done: Represented, wanted: set[Output]) -> RepresentReply:
    return RepresentReply(
        model=done.model,
        data=[_rendered(index, one, wanted) for index, one in enumerate(done.texts)],
        usage=TokenUsage(done.usage.tokens, done.usage.truncated_tokens),
    )


def _rendered(index: int, one: Representation, wanted: set[Output]) -> TextRepresentation:
    dense, tokens, sparse = one.dense, one.multi_vector, one.sparse
    return TextRepresentation(
        index=index,
        dense=UNSET if dense is None or "dense" not in wanted else numbers(dense),
        multi_vector=UNSET if tokens is None or "multi_vector" not in wanted else numbers(tokens),
        sparse=UNSET
        if sparse is None or "sparse" not in wanted
        else Sparse(numbers(sparse.indices), numbers(sparse.values), sparse.size),
    )


@post(
    "/admin/models/load",
    status_code=200,
    opt=LOAD,
)
async def load(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Load the model now; answer once it is there."""
    caller_of(request.scope).require_scope("admin")
    return json_response(await cancel_on_disconnect(request, fleet_of(request).load(await _read_order(request))))


@post(
    "/admin/models/unload",
    status_code=200,
    opt=UNLOAD,
)
async def unload(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Close the model once the requests that use it have ended; answer then. The next request loads it again."""
    caller_of(request.scope).require_scope("admin")
    return json_response(await cancel_on_disconnect(request, fleet_of(request).unload(await _read_order(request))))


async def _read_order(request: Request[Any, Any, Any]) -> str:
    try:
        return (await read_body(request, _decoder)).model
    except msgspec.ValidationError as error:
        raise errors.InputError(f'the body must be {{"model": "a name"}}: {error}') from error


def _render_error(wire: WireError) -> object:
    return ErrorReply(type(wire.error).__name__, wire.message)


dialect = Dialect(
    name="native",
    handlers=[live, ready, info, metrics, openapi, docs, *manual.handlers, represent, load, unload],
    render_error=_render_error,
    error_reply=ErrorReply,
    about="Our own: health, what is served, metrics, all that a model makes of texts, models by order.",
    prefixes=("/",),
)
