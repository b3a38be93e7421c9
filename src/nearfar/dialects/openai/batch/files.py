"""OpenAI's files: https://platform.openai.com/docs/api-reference/files."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import IO, Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath
from litestar.response import Stream
from msgspec import Meta, Struct

from nearfar.batches.records import File, Purpose
from nearfar.batches.store import Page, Store, new_id
from nearfar.core.caller import Caller
from nearfar.core.errors import InputError, ObjectNotFound, TooManyItems
from nearfar.core.settings import Settings
from nearfar.dialects.kit.endpoint import json_response
from nearfar.dialects.kit.request import AnyRequest, caller_of, settings_of, storage_of
from nearfar.dialects.kit.route_docs import RouteDocs, json_schema, route_docs
from nearfar.dialects.openai.batch.form import receive_form, refuse_over
from nearfar.dialects.openai.batch.paging import query_docs, read_query
from nearfar.dialects.openai.headers import USUAL_HEADERS, usual_headers

KEPT_S = 30 * 86_400  # a file is kept for so long unless another time is asked for, as OpenAI does
_SHORTEST_S = 3600
_PART = 131_072  # bytes of a file that are sent at once
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
FILE_ID = "file-0123456789abcdef0123456789abcdef"
_EXAMPLE = {"id": FILE_ID, "bytes": 172, "created_at": 1795903200, "filename": "input.jsonl", "purpose": "batch"}


class NewFile(Struct, kw_only=True):
    """The form of POST /v1/files."""

    file: Annotated[str, json_schema(format="binary")]
    purpose: Literal["batch"]


class FilesReply(Struct, kw_only=True):
    """A page of files."""

    object: Annotated[str, json_schema(const="list")] = "list"
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Struct):
    """The body of an answer to DELETE."""

    id: str
    object: Annotated[str, json_schema(const="file")] = "file"
    deleted: bool = True


class FilesQuery(Struct, kw_only=True):
    """The query of GET /v1/files."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    purpose: Purpose | None = None


class Expiry(Struct, kw_only=True):
    """When files expire."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=_SHORTEST_S, le=KEPT_S)]


_COMMON: dict[str, Any] = {"answers": "files", "headers": USUAL_HEADERS}
_ONE: dict[str, Any] = {**_COMMON, "path": {"file_id": FILE_ID}}
_CREATE = RouteDocs(
    summary="Upload a file",
    answers=("files",),
    details="A form of ``multipart/form-data``. The bytes go to disk while they arrive.",
    body=NewFile,
    body_media_type="multipart/form-data",
    reply=File,
    reply_example=_EXAMPLE,
    headers=USUAL_HEADERS,
    counts=False,
)
_LIST = route_docs("List your files", reply=FilesReply, query=query_docs(FilesQuery), **_COMMON)
_GET = route_docs("Return what is known of a file", reply=File, reply_example=_EXAMPLE, **_ONE)
_CONTENT = route_docs(
    "Return the bytes of a file",
    media_type="application/octet-stream",
    **_ONE | {"headers": {**USUAL_HEADERS, "accept-ranges": "bytes: a request may ask for a range"}},
)
_DELETE = route_docs("Delete a file", reply=FileDeleted, **_ONE)


def files_caller(request: AnyRequest) -> Caller:
    """Return the caller. Raises Forbidden without a scope for files."""
    caller = caller_of(request.scope)
    caller.require_scope_for("files")
    return caller


@post(["/v1/files", "/files"], status_code=200, opt={"docs": _CREATE})
async def create_file(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Store a file. Raises InputError, BodyTooLarge, StorageUnavailable, and what ``receive_form`` does."""
    caller, storage, settings = files_caller(request), storage_of(request), settings_of(request)
    file_id = new_id("file-")
    room, path = await storage.run(lambda store: (free_bytes(store, caller, settings), store.partial(file_id)))
    try:
        form = await receive_form(request, "file", path, min(settings.max_file_bytes, room))
        if (purpose := form.text("purpose")) != "batch":
            raise InputError(f"purpose must be 'batch'{f', not {purpose[:50]!r}' if purpose else ''}", "purpose")
        now = int(time.time())
        file = File(
            id=file_id,
            bytes=form.size,
            created_at=now,
            expires_at=now + _kept_s(form.text("expires_after[anchor]"), form.text("expires_after[seconds]")),
            filename=form.filename or "",
            purpose="batch",
        )

        def add(store: Store) -> None:
            refuse_over(free_bytes(store, caller, settings), file.bytes)  # others may have arrived meanwhile
            store.add_file(caller.name, file)

        await storage.run(add)
    finally:
        with suppress(OSError):
            await asyncio.to_thread(path.unlink, missing_ok=True)
    return json_response(file, headers=usual_headers(request))


def free_bytes(store: Store, caller: Caller, settings: Settings) -> int:
    """Return how many more bytes the caller may store. Raises TooManyItems if that is no more files."""
    count, size = store.count_files(caller.name)
    if count >= settings.max_stored_files:
        raise TooManyItems("files", count + 1, settings.max_stored_files)
    return settings.max_stored_bytes - size


def _kept_s(anchor: str | None, seconds: str | None) -> int:
    """Return how long a file is kept. Raises InputError for another anchor, and a time out of range."""
    if anchor is None and seconds is None:
        return KEPT_S
    try:
        return msgspec.convert({"anchor": anchor, "seconds": seconds}, Expiry, strict=False).seconds
    except msgspec.ValidationError as error:
        raise InputError(f"expires_after is wrong: {error}", "expires_after") from error


@get(["/v1/files", "/files"], opt=_LIST)
async def list_files(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a page of the caller's files."""
    caller, query = files_caller(request), read_query(request, FilesQuery)
    page = Page(limit=query.limit + 1, after=query.after, newest_first=query.order == "desc")
    found = await storage_of(request).run(lambda store: store.files(caller.name, page, query.purpose))
    data = found[: query.limit]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    reply = FilesReply(data=data, first_id=first, last_id=last, has_more=len(found) > len(data))
    return json_response(reply, headers=usual_headers(request))


@get(["/v1/files/{file_id:str}", "/files/{file_id:str}"], opt=_GET)
async def get_file(request: Request[Any, Any, Any], file_id: FromPath[str]) -> Response[bytes]:
    """Return a file. Raises ObjectNotFound."""
    return json_response(await find_file(request, files_caller(request), file_id), headers=usual_headers(request))


async def find_file(request: AnyRequest, caller: Caller, file_id: str) -> File:
    """Return a file of the caller. Raises ObjectNotFound."""
    if file := await storage_of(request).run(lambda store: store.file(caller.name, file_id)):
        return file
    raise ObjectNotFound("File", file_id)


@get(["/v1/files/{file_id:str}/content", "/files/{file_id:str}/content"], opt=_CONTENT)
async def get_file_content(request: Request[Any, Any, Any], file_id: FromPath[str]) -> Response[Any]:
    """Return the bytes of a file, or the range of them that is asked for. Raises ObjectNotFound."""
    file = await find_file(request, files_caller(request), file_id)

    def open_file(store: Store) -> IO[bytes]:
        return store.path(file_id).open("rb")

    opened = await storage_of(request).run(open_file)
    start, stop = _range_of(request.headers.get("range", ""), file.bytes)
    headers = usual_headers(request) | {"content-length": str(stop - start), "accept-ranges": "bytes"}
    is_part = (start, stop) != (0, file.bytes)
    if is_part:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
    return Stream(
        _read(opened, start, stop),
        status_code=206 if is_part else 200,
        media_type="application/octet-stream",
        headers=headers,
    )


def _range_of(header: str, size: int) -> tuple[int, int]:
    """Return where a range begins and ends; the whole file for one that can't be read or doesn't fit."""
    found = _RANGE.fullmatch(header.strip())
    if not found or found.groups() == ("", ""):
        return 0, size
    first, last = found.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    return (start, stop) if start < stop else (0, size)


async def _read(file: IO[bytes], start: int, stop: int) -> AsyncIterator[bytes]:
    with file:
        file.seek(start)
        while start < stop and (data := await asyncio.to_thread(file.read, min(_PART, stop - start))):
            start += len(data)
            yield data


@delete(["/v1/files/{file_id:str}", "/files/{file_id:str}"], status_code=200, opt=_DELETE)
async def delete_file(request: Request[Any, Any, Any], file_id: FromPath[str]) -> Response[bytes]:
    """Delete a file. Raises ObjectNotFound."""
    caller = files_caller(request)
    if not await storage_of(request).run(lambda store: store.delete_file(caller.name, file_id)):
        raise ObjectNotFound("File", file_id)
    return json_response(FileDeleted(file_id), headers=usual_headers(request))
