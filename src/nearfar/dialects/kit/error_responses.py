"""Exceptions → errors → status, wire kind, code and message. One default status per class of errors.

A dialect's table has only what differs from the defaults.
A class takes the nearest row of its method resolution order, and at each class the dialect's row goes before the
default. A row without a status takes the nearest status in the same order.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR
from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.request import AnyRequest, request_id

_log = logging.getLogger(__name__)


class ErrorRow(Struct, frozen=True):
    """How a dialect reports a class of errors. ``kind`` and ``code`` are its own words."""

    status: int = 0  # 0 takes the nearest status
    kind: str = ""
    code: str | None = None
    # Builds the message from the error. None sends the error's own, which never contains a cause.
    message: Callable[[Any], str] | None = None


ErrorTable = Mapping[type[errors.NearfarError], ErrorRow]

DEFAULTS: ErrorTable = {
    errors.RequestError: ErrorRow(400),
    errors.BodyTooLarge: ErrorRow(413),
    errors.EncodingNotSupported: ErrorRow(415),
    errors.BodyTimeout: ErrorRow(408),
    errors.ModelNotFound: ErrorRow(404),
    errors.PathNotFound: ErrorRow(404),
    errors.ObjectNotFound: ErrorRow(404),
    errors.MethodNotAllowed: ErrorRow(405),
    errors.ApiKeyMissing: ErrorRow(401),
    errors.ApiKeyInvalid: ErrorRow(401),
    errors.Forbidden: ErrorRow(403),
    errors.HostNotAllowed: ErrorRow(403),
    errors.HeadTooLarge: ErrorRow(431),
    errors.ClientDisconnected: ErrorRow(499),  # as nginx
    errors.ServingError: ErrorRow(500),
    errors.Overloaded: ErrorRow(429),
    errors.DeadlineExceeded: ErrorRow(504),
    errors.ModelNotReady: ErrorRow(503),
    errors.ShuttingDown: ErrorRow(503),
    errors.StorageUnavailable: ErrorRow(503),
    errors.StorageFull: ErrorRow(507),
    errors.DeviceOutOfMemory: ErrorRow(413),  # clients retry a 5xx, and the text would fail again
}


class WireError(Struct, frozen=True, kw_only=True):
    """One error, ready for the body of a dialect's answer."""

    error: errors.NearfarError
    status: int
    kind: str
    code: str | None
    message: str


def error_row(kind: type[errors.NearfarError], table: ErrorTable) -> ErrorRow:
    """Return the row of a class of errors in a dialect with this table, status included."""
    rows = [row for base in kind.__mro__ for rows in (table, DEFAULTS) if (row := rows.get(base))]
    return msgspec.structs.replace(rows[0], status=next(row.status for row in rows if row.status))


def wire_error(error: errors.NearfarError, table: ErrorTable) -> WireError:
    """Return the error as a dialect with this table reports it."""
    row = error_row(type(error), table)
    message = row.message(error) if row.message else str(error)
    return WireError(error=error, status=row.status, kind=row.kind, code=row.code, message=message)


def standard_headers(error: errors.NearfarError) -> dict[str, str]:
    """Return the headers that an error has in every dialect."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.ServingError) and error.retry_after_s:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
        if error.retry_after_s != int(error.retry_after_s):  # OpenAI's and Cohere's clients prefer it
            headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    if isinstance(error, errors.MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, (errors.BodyTimeout, errors.AmbiguousLength)):
        headers["connection"] = "close"  # or the server would wait for the rest of the body
    return headers


def to_nearfar_error(request: AnyRequest, exc: Exception) -> errors.NearfarError:
    """Convert any exception to an error of ours. Logs what is unexpected."""
    method, path = request.scope["method"][:20], request.scope["path"][:200]
    if isinstance(exc, NotFoundException):
        return errors.PathNotFound(method, path)
    if isinstance(exc, MethodNotAllowedException):
        allowed = {*(exc.headers or {})["allow"].split(", ")} - {"OPTIONS"}
        return errors.MethodNotAllowed(method, path, tuple(sorted(allowed)))
    if isinstance(exc, HTTPException) and exc.status_code < HTTP_500_INTERNAL_SERVER_ERROR:
        return errors.MalformedBody("the request can't be read")  # a bad host header
    if isinstance(exc, errors.NearfarError) and not isinstance(exc, errors.SetupError):
        return exc
    _log.error("request %s failed", request_id(request.scope), exc_info=exc)
    return errors.InternalError("the server failed on this request; its log says why under this request's id")


def all_errors() -> list[type[errors.NearfarError]]:
    """Return every class of errors that can answer a request, each before its subclasses."""
    return [*_with_subclasses(errors.RequestError), *_with_subclasses(errors.ServingError)]


def _with_subclasses(kind: type[errors.NearfarError]) -> Iterator[type[errors.NearfarError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _with_subclasses(child)
