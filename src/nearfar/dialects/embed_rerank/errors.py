"""Errors as embed-rerank reports them: a type, a message and the status."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable, WireError

_INTERNAL = 500
ERRORS: ErrorTable = {
    errors.InputError: ErrorRow(422),
    errors.ServingError: ErrorRow(message=lambda _: "the server failed on this request; its log says why"),
}


class ErrorReply(Struct):
    """The body of every error."""

    error: str
    detail: str
    status_code: int


def render_error(wire: WireError) -> object:
    """Return the body of an error."""
    return ErrorReply("internal_server_error" if wire.status == _INTERNAL else "api_error", wire.message, wire.status)
