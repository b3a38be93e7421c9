"""OpenAI's uploads, files that are sent in parts: https://platform.openai.com/docs/api-reference/uploads."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from litestar.params import FromPath
from msgspec import Struct
from msgspec.structs import replace

from nearfar.batches import upload_store
from nearfar.batches.records import File, StoredUpload, Upload, UploadPart
from nearfar.batches.store import Store, new_id
from nearfar.core.caller import Caller
from nearfar.core.errors import InputError, ObjectNotFound
from nearfar.dialects.kit.body.receive import receive_body
from nearfar.dialects.kit.checks import decode_part
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import AnyRequest, settings_of, storage_of
from nearfar.dialects.kit.route_docs import AtLeastOne, NotEmpty, RouteDocs, json_schema, route_docs
from nearfar.dialects.openai.batch.files import FILE_ID, KEPT_S, Expiry, files_caller, free_bytes
from nearfar.dialects.openai.batch.form import checked_name, receive_form, refuse_over
from nearfar.dialects.openai.headers import USUAL_HEADERS, usual_headers

_OPEN_S = 3600
_MAX_PART_BYTES = 67_108_864  # 64 MiB, the size of the parts that OpenAI's clients send
UPLOAD_ID = "upload_0123456789abcdef0123456789abcdef"
PART_ID = "part_0123456789abcdef0123456789abcdef"
_NEW = {"bytes": 2, "filename": "input.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
_EXAMPLE = {
    "id": UPLOAD_ID,
    "bytes": 2,
    "created_at": 1795903200,
    "expires_at": 1795906800,
    "filename": "input.jsonl",
    "status": "pending",
    "file": None,
}
_FILE = {"id": FILE_ID, "bytes": 2, "created_at": 1795903260, "filename": "input.jsonl", "purpose": "batch"}


class NewUpload(Struct, kw_only=True):
    """The body of POST /v1/uploads. ``bytes`` is the size of the whole file."""

    bytes: AtLeastOne
    filename: Annotated[str, json_schema(pattern=r"^[^\x00-\x1f\x7f]*(?![\s\S])")]
    mime_type: str
    purpose: Annotated[str, json_schema(const="batch")]
    expires_after: Expiry | None = None


class NewPart(Struct, kw_only=True):
    """The form of a part."""

    data: Annotated[str, json_schema(format="binary")]


class PartsInOrder(Struct, kw_only=True):
    """The parts of which a file is made. ``md5`` is that of the file, in hexadecimal digits."""

    part_ids: Annotated[list[NotEmpty], json_schema(minItems=1, uniqueItems=True)]
    md5: str | None = None


_COMMON: dict[str, Any] = {"headers": USUAL_HEADERS, "counts": False}
_ONE: dict[str, Any] = {**_COMMON, "path": {"upload_id": UPLOAD_ID}}
_CREATE = RouteDocs(
    summary="Start to upload a file in parts",
    answers=("files",),
    details="The upload expires an hour later.",
    body=NewUpload,
    example=_NEW,
    reply=Upload,
    reply_example=_EXAMPLE,
    **_COMMON,
)
_ADD = RouteDocs(
    summary="Upload a part of a file",
    answers=("files",),
    details="A form of ``multipart/form-data``, with up to 64 MiB. The bytes go to disk while they arrive.",
    body=NewPart,
    body_media_type="multipart/form-data",
    reply=UploadPart,
    reply_example={"id": PART_ID, "created_at": 1795903200, "upload_id": UPLOAD_ID},
    **_ONE,
)
_COMPLETE = RouteDocs(
    summary="Make a file of an upload's parts",
    answers=("files",),
    body=PartsInOrder,
    example={"part_ids": [PART_ID]},
    reply=Upload,
    reply_example={**_EXAMPLE, "status": "completed", "file": _FILE},
    **_ONE,
)
_CANCEL = route_docs(
    "Cancel an upload", "files", reply=Upload, reply_example={**_EXAMPLE, "status": "cancelled"}, **_ONE
)
_new = msgspec.json.Decoder(NewUpload, strict=False)
_parts = msgspec.json.Decoder(PartsInOrder)


@post(["/v1/uploads", "/uploads"], status_code=200, opt={"docs": _CREATE})
async def create_upload(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Store an upload. Raises InputError, TooManyItems, BodyTooLarge and StorageUnavailable."""
    caller, settings = files_caller(request), settings_of(request)
    body = decode_part(await receive_body(request), _new)
    if body.purpose != "batch":
        raise InputError(f"purpose must be 'batch', not {body.purpose[:50]!r}", "purpose")
    if body.bytes < 1:
        raise InputError(f"bytes must be at least 1, not {body.bytes}", "bytes")
    now = int(time.time())
    upload = Upload(
        id=new_id("upload_"),
        bytes=body.bytes,
        created_at=now,
        expires_at=now + _OPEN_S,
        filename=checked_name(body.filename or "upload"),
    )
    keep_s = body.expires_after.seconds if body.expires_after else KEPT_S
    stored = StoredUpload(owner=caller.name, upload=upload, keep_s=keep_s)

    def add(store: Store) -> None:
        refuse_over(min(settings.max_file_bytes, free_bytes(store, caller, settings)), body.bytes)
        upload_store.add_upload(store, stored)

    await storage_of(request).run(add)
    return json_response(upload, headers=usual_headers(request))


async def _find(request: AnyRequest, caller: Caller, upload_id: str) -> StoredUpload:
    """Return an upload of the caller. Raises ObjectNotFound."""
    now = int(time.time())
    stored = await storage_of(request).run(lambda store: upload_store.find_upload(store, caller.name, upload_id, now))
    if stored is None:
        raise ObjectNotFound("Upload", upload_id)
    return stored


def _wrong_status(action: str, stored: StoredUpload) -> InputError:
    return InputError(f"Cannot {action} an upload with status '{stored.upload.status}'.")


@post(["/v1/uploads/{upload_id:str}/parts", "/uploads/{upload_id:str}/parts"], status_code=200, opt={"docs": _ADD})
async def add_upload_part(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> Response[bytes]:
    """Store a part. Raises ObjectNotFound, InputError, TooManyItems, and what ``receive_form`` does."""
    caller, storage, settings = files_caller(request), storage_of(request), settings_of(request)
    stored = await _find(request, caller, upload_id)
    if stored.upload.status != "pending":
        raise _wrong_status("add a part to", stored)
    part = UploadPart(id=new_id("part_"), created_at=int(time.time()), upload_id=upload_id)

    def room(store: Store) -> int:
        reserved = max(stored.upload.bytes - sum(upload_store.part_sizes(store, upload_id).values()), 0)
        return min(_MAX_PART_BYTES, free_bytes(store, caller, settings) + reserved)

    limit, path = await storage.run(lambda store: (room(store), store.partial(part.id)))
    try:
        form = await receive_form(request, "data", path, limit)
        if not form.size:
            raise InputError("data is empty", "data")

        def add(store: Store) -> bool:
            refuse_over(room(store), form.size)  # others may have arrived meanwhile
            return upload_store.add_part(store, part, form.size)

        is_stored = await storage.run(add)
    finally:
        with suppress(OSError):
            await asyncio.to_thread(path.unlink, missing_ok=True)
    if not is_stored:
        raise _wrong_status("add a part to", await _find(request, caller, upload_id))
    return json_response(part, headers=usual_headers(request))


@post(
    ["/v1/uploads/{upload_id:str}/complete", "/uploads/{upload_id:str}/complete"],
    status_code=200,
    opt={"docs": _COMPLETE},
)
async def complete_upload(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> Response[bytes]:
    """Make a file of parts, in their order. Raises ObjectNotFound, and InputError if they aren't the announced file.

    An upload that was completed with the same parts is returned as it is, so that a client may retry.
    """
    caller, storage = files_caller(request), storage_of(request)
    body = decode_part(await receive_body(request), _parts)
    stored = await _find(request, caller, upload_id)
    if stored.upload.status == "pending":
        sizes = await storage.run(lambda store: upload_store.part_sizes(store, upload_id))
        _check_parts(body.part_ids, sizes, stored.upload.bytes)
        await _complete(request, stored, body)
        stored = await _find(request, caller, upload_id)
    if stored.upload.status != "completed" or stored.part_ids != body.part_ids:
        raise _wrong_status("complete", stored)
    return json_response(stored.upload, headers=usual_headers(request))


def _check_parts(part_ids: list[str], sizes: dict[str, int], expected: int) -> None:
    """Raise ObjectNotFound for a part that isn't there, and InputError for a repeated one and another size."""
    if missing := next((part_id for part_id in part_ids if part_id not in sizes), None):
        raise ObjectNotFound("UploadPart", missing)
    if len({*part_ids}) < len(part_ids):
        raise InputError("part_ids has a part more than once", "part_ids")
    if (size := sum(sizes[part_id] for part_id in part_ids)) != expected:
        message = f"the parts have {size:,} bytes together, and the upload was created for {expected:,}"
        raise InputError(message, "part_ids")


async def _complete(request: AnyRequest, stored: StoredUpload, body: PartsInOrder) -> None:
    """Join the parts in a thread, and end the upload, unless it has ended meanwhile. Raises InputError for the MD5."""
    storage, upload, now = storage_of(request), stored.upload, int(time.time())
    file = File(
        id=new_id("file-"),
        bytes=upload.bytes,
        created_at=now,
        expires_at=now + stored.keep_s,
        filename=upload.filename,
        purpose=upload.purpose,
    )
    target, *parts = await storage.run(lambda store: [store.partial(file.id), *map(store.path, body.part_ids)])
    try:
        md5 = await storage.in_thread(upload_store.join_parts, parts, target)
        if md5 is None:
            return
        if body.md5 is not None and body.md5.lower() != md5:
            raise InputError(f"the file's MD5 is {md5}, not {body.md5[:50]!r}", "md5")
        completed = replace(upload, status="completed", file=file)
        ended = replace(stored, upload=completed, part_ids=body.part_ids)
        await storage.run(lambda store: upload_store.end_upload(store, ended, file))
    finally:
        with suppress(OSError):
            await asyncio.to_thread(target.unlink, missing_ok=True)


@post(["/v1/uploads/{upload_id:str}/cancel", "/uploads/{upload_id:str}/cancel"], status_code=200, opt=_CANCEL)
async def cancel_upload(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> Response[bytes]:
    """Cancel an upload, and delete its parts. Raises ObjectNotFound, and InputError for one that has ended."""
    caller, storage = files_caller(request), storage_of(request)
    stored = await _find(request, caller, upload_id)
    if stored.upload.status == "pending":
        cancelled = replace(stored, upload=replace(stored.upload, status="cancelled"))
        await storage.run(lambda store: upload_store.end_upload(store, cancelled))
        stored = await _find(request, caller, upload_id)
    if stored.upload.status != "cancelled":
        raise _wrong_status("cancel", stored)
    return json_response(stored.upload, headers=usual_headers(request))
