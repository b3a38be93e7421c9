"""Receives a file as multipart/form-data, to disk while it arrives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from nearfar.core.errors import BodyTimeout, BodyTooLarge, ClientDisconnected, InputError, NearfarError
from nearfar.dialects.kit.body.receive import read_on
from nearfar.dialects.kit.request import AnyRequest, settings_of, storage_of

_MAX_FIELD_BYTES = 4096
_MAX_PARTS = 16
_MAX_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Form:
    """A form with a file that goes to disk. ``filename`` is the client's; no path is made of it."""

    def __init__(self, file_part: str, file: IO[bytes], limit: int) -> None:
        self.fields: dict[str, bytes] = {}
        self.filename: str | None = None
        self.size = 0
        self._file_part = file_part
        self._file = file
        self._limit = limit
        self._part = ""

    def read(self, parser: PushMultipartParser, data: bytes) -> None:
        """Read what arrived. Raises BodyTooLarge and MultipartError. Writes to disk: to be called in a thread."""
        for event in parser.parse(data):
            if isinstance(event, MultipartSegment):
                self._part = event.name or ""
                if self._part == self._file_part:
                    if self.filename is not None:
                        raise InputError(f"{self._part} may be in the form only once", self._part)
                    self.filename = checked_name(event.filename or "upload")
                else:
                    self.fields[self._part] = b""
            elif event is not None:
                self._add(event)

    def _add(self, data: bytes | bytearray) -> None:
        if self._part == self._file_part:
            self.size += len(data)
            refuse_over(self._limit, self.size)
            self._file.write(data)
        else:
            self.fields[self._part] += data
            if len(self.fields[self._part]) > _MAX_FIELD_BYTES:
                raise BodyTooLarge(f"the field {self._part[:50]!r} is over {_MAX_FIELD_BYTES:,} bytes")

    def text(self, name: str) -> str | None:
        """Return a field; None without it. Raises InputError if it isn't UTF-8."""
        try:
            return self.fields[name].decode() if name in self.fields else None
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is not UTF-8", name) from error


def checked_name(name: str) -> str:
    """Return a file's name, cut to 255 characters. Raises InputError for one with a line break or another control."""
    if _CONTROL.search(name):
        raise InputError("filename can't have control characters", "filename")
    return name[:_MAX_NAME]


def refuse_over(limit: int, size: int) -> None:
    """Raise BodyTooLarge for a file that is over the limit."""
    if size > limit:
        raise BodyTooLarge(f"the file is over {limit:,} bytes, the most that is stored for you")


async def receive_form(request: AnyRequest, file_part: str, path: Path, limit: int) -> Form:
    """Receive a form with a file of at most ``limit`` bytes, which is written to ``path``.

    Raises InputError for another kind of body, and a form without the file or one that isn't complete. Raises
    BodyTooLarge, BodyTimeout and ClientDisconnected for one that doesn't arrive, and StorageUnavailable.
    """
    kind, options = parse_options_header(request.scope["state"]["headers"].get(b"content-type", b"").decode("latin-1"))
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise InputError("the body must be multipart/form-data")
    parser = PushMultipartParser(options["boundary"], max_segment_count=_MAX_PARTS)
    in_thread = storage_of(request).in_thread
    file = await in_thread(path.open, "wb")
    try:
        form = Form(file_part, file, limit)
        async for data, more in _receive(request):
            try:
                await in_thread(form.read, parser, data)
            except (MultipartError, NearfarError):
                if more:
                    await read_on(request)  # or the connection ends, and with it the client's next request
                raise
        parser.close()
    except MultipartError as error:
        raise InputError(f"the form can't be read: {error.args[0]}") from error
    finally:
        await in_thread(file.close)
    if form.filename is None:
        raise InputError(f"{file_part} is required: a part of the form with the file's bytes", file_part)
    return form


async def _receive(request: AnyRequest) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield the parts of a body, and whether more come. Each has to arrive within ``receive_timeout_s``."""
    limit_s = settings_of(request).receive_timeout_s
    more = True
    while more:
        try:
            message = await asyncio.wait_for(request.receive(), limit_s)
        except TimeoutError as error:
            raise BodyTimeout(f"nothing arrived for {limit_s:g} s, the most this server waits") from error
        if message["type"] != "http.request":
            raise ClientDisconnected("the caller closed the connection while sending")
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"], more
