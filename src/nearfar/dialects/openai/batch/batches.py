"""OpenAI's batches: https://platform.openai.com/docs/api-reference/batch."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from msgspec import Meta, Struct
from msgspec.structs import replace

from nearfar.batches.records import Batch, Progress, StoredBatch
from nearfar.batches.store import Page, Store, new_id
from nearfar.core.errors import InputError, ObjectNotFound
from nearfar.dialects.kit.body.receive import receive_body
from nearfar.dialects.kit.checks import decode_part
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import ServerParts, storage_of
from nearfar.dialects.kit.route_docs import RouteDocs, json_schema, route_docs
from nearfar.dialects.openai.batch.files import FILE_ID, KEPT_S, Expiry, files_caller, find_file
from nearfar.dialects.openai.batch.paging import query_docs, read_query
from nearfar.dialects.openai.headers import USUAL_HEADERS, usual_headers

ENDPOINTS = ("/v1/embeddings", "/v1/rerank", "/v2/rerank", "/v1/embed", "/v2/embed", "/v1/score")
_WINDOW = "^([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h$|^([1-9]|[12][0-9]|30)d$"  # up to 30 days
_UNITS_S = {"h": 3600, "d": 86_400}
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512
_PAIR = {
    "propertyNames": {"maxLength": _MAX_KEY},
    "additionalProperties": {"type": "string", "maxLength": _MAX_VALUE},
}
BATCH_ID = "batch_0123456789abcdef0123456789abcdef"
_RUNNING = ("validating", "in_progress")
_EXAMPLE = {
    "id": BATCH_ID,
    "endpoint": "/v1/embeddings",
    "input_file_id": FILE_ID,
    "completion_window": "24h",
    "created_at": 1795903200,
    "expires_at": 1795989600,
}


class NewBatch(Struct, kw_only=True):
    """The body of POST /v1/batches. ``completion_window`` is in hours or days, up to 30 days."""

    input_file_id: str
    endpoint: Annotated[str, json_schema(enum=[*ENDPOINTS])]
    completion_window: Annotated[str, json_schema(examples=["24h"], pattern=_WINDOW)]
    metadata: Annotated[dict[str, str], json_schema(maxProperties=_MAX_PAIRS, **_PAIR)] | None = None
    output_expires_after: Expiry | None = None


class BatchesReply(Struct, kw_only=True):
    """A page of batches."""

    object: Annotated[str, json_schema(const="list")] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchesQuery(Struct, kw_only=True):
    """The query of GET /v1/batches."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    after: str | None = None


_COMMON: dict[str, Any] = {"answers": "files", "headers": USUAL_HEADERS}
_ONE: dict[str, Any] = {**_COMMON, "reply": Batch, "reply_example": _EXAMPLE, "path": {"batch_id": BATCH_ID}}
_CREATE = RouteDocs(
    summary="Start a batch",
    answers=("files",),
    details="Answers the requests in a file, with the lowest priority. The answers become files.",
    body=NewBatch,
    example={"input_file_id": FILE_ID, "endpoint": "/v1/embeddings", "completion_window": "24h"},
    reply=Batch,
    reply_example=_EXAMPLE,
    headers=USUAL_HEADERS,
    counts=False,
)
_LIST = route_docs("List your batches", reply=BatchesReply, query=query_docs(BatchesQuery), **_COMMON)
_GET = route_docs("Return a batch", **_ONE)
_CANCEL = route_docs("Cancel a batch", **_ONE)
_decoder = msgspec.json.Decoder(NewBatch)


@post(["/v1/batches", "/batches"], status_code=200, opt={"docs": _CREATE})
async def create_batch(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Store a batch, which is then checked and run. Raises InputError, ObjectNotFound and StorageUnavailable."""
    caller = files_caller(request)
    body = decode_part(await receive_body(request), _decoder)
    window_s = _check(body)
    await find_file(request, caller, body.input_file_id)
    now = int(time.time())
    batch = Batch(
        id=new_id("batch_"),
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        completion_window=body.completion_window,
        created_at=now,
        expires_at=now + window_s,
        metadata=body.metadata,
    )
    keep_s = body.output_expires_after.seconds if body.output_expires_after else KEPT_S
    progress = Progress(scopes=caller.scopes, keep_s=keep_s, output_id=new_id("file-"), error_id=new_id("file-"))
    stored = StoredBatch(owner=caller.name, batch=batch, progress=progress)
    await storage_of(request).run(lambda store: store.add_batch(stored))
    _server(request).batches.wake()
    return json_response(batch, headers=usual_headers(request))


def _server(request: Request[Any, Any, Any]) -> ServerParts:
    server: ServerParts = request.scope["state"]["server"]
    return server


def _check(body: NewBatch) -> int:
    """Return the window in seconds. Raises InputError for a value that isn't allowed."""
    if body.endpoint not in ENDPOINTS:
        raise InputError(f"endpoint must be one of {', '.join(ENDPOINTS)}, not {body.endpoint[:50]!r}", "endpoint")
    window = body.completion_window
    if not re.fullmatch(_WINDOW, window):
        message = f"completion_window must be like 24h or 7d, up to 30d, not {window[:50]!r}"
        raise InputError(message, "completion_window")
    pairs = body.metadata or {}
    if len(pairs) > _MAX_PAIRS or any(len(key) > _MAX_KEY or len(value) > _MAX_VALUE for key, value in pairs.items()):
        message = (
            f"metadata may have {_MAX_PAIRS} pairs, of keys up to {_MAX_KEY} and values up to {_MAX_VALUE} characters"
        )
        raise InputError(message, "metadata")
    return int(window[:-1]) * _UNITS_S[window[-1]]


@get(["/v1/batches", "/batches"], opt=_LIST)
async def list_batches(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a page of the caller's batches, the newest first."""
    caller, query = files_caller(request), read_query(request, BatchesQuery)
    page = Page(limit=query.limit + 1, after=query.after)
    found = await storage_of(request).run(lambda store: store.batches(caller.name, page))
    data = [stored.batch for stored in found[: query.limit]]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    reply = BatchesReply(data=data, first_id=first, last_id=last, has_more=len(found) > len(data))
    return json_response(reply, headers=usual_headers(request))


@get(["/v1/batches/{batch_id:str}", "/batches/{batch_id:str}"], opt=_GET)
async def get_batch(request: Request[Any, Any, Any], batch_id: FromPath[str]) -> Response[bytes]:
    """Return a batch. Raises ObjectNotFound."""
    caller = files_caller(request)
    stored = await storage_of(request).run(lambda store: store.batch(caller.name, batch_id))
    if stored is None:
        raise ObjectNotFound("Batch", batch_id)
    return json_response(stored.batch, headers=usual_headers(request))


@post(["/v1/batches/{batch_id:str}/cancel", "/batches/{batch_id:str}/cancel"], status_code=200, opt=_CANCEL)
async def cancel_batch(request: Request[Any, Any, Any], batch_id: FromPath[str]) -> Response[bytes]:
    """Cancel a batch; what is answered is kept. Raises ObjectNotFound, and InputError for one that has ended."""
    caller = files_caller(request)

    def cancel(store: Store) -> StoredBatch | None:
        found = store.batch(caller.name, batch_id)
        return store.change_batch(batch_id, _cancelling) if found else None

    stored = await storage_of(request).run(cancel)
    if stored is None:
        raise ObjectNotFound("Batch", batch_id)
    if stored.batch.status not in {"cancelling", "cancelled"}:
        raise InputError(f"Cannot cancel a batch with status '{stored.batch.status}'.")
    _server(request).batches.cancel(batch_id)
    return json_response(stored.batch, headers=usual_headers(request))


def _cancelling(stored: StoredBatch) -> StoredBatch:
    if stored.batch.status not in _RUNNING:
        return stored
    return replace(stored, batch=replace(stored.batch, status="cancelling", cancelling_at=int(time.time())))
