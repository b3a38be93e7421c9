"""What goes wrong, in embed-rerank's words: a kind, a sentence and the status."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow

_API, _INTERNAL = "api_error", "internal_server_error"
_STATUS: dict[type[errors.NearfarError], int] = {
    errors.RequestError: 400,
    errors.InputError: 422,
    errors.MalformedBody: 422,
    errors.BodyTooLarge: 413,
    errors.SlowBody: 408,
    errors.NoModel: 422,
    errors.EmptyInput: 422,
    errors.TooMany: 422,
    errors.TooLong: 422,
    errors.TooManyTokens: 422,
    errors.BadDimensions: 422,
    errors.BadTokenIds: 422,
    errors.UnknownModel: 404,
    errors.WrongTask: 400,
    errors.UnknownPath: 404,
    errors.WrongMethod: 405,
    errors.MissingKey: 401,
    errors.WrongKey: 401,
    errors.Forbidden: 403,
    errors.WrongHost: 403,
    errors.CallerGone: 499,
    errors.Overloaded: 429,
    errors.DeadlinePassed: 504,
    errors.NotReady: 503,
    errors.Draining: 503,
    errors.OutOfMemory: 413,
}
_FAILED = ErrorRow(500, _INTERNAL, phrase=lambda _: "the server failed on this request; its log says why")
ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    **{kind: ErrorRow(status, _API) for kind, status in _STATUS.items()},
    errors.ServingError: _FAILED,
    errors.EngineFailed: _FAILED,
    errors.InternalFault: _FAILED,
}


class ErrorReply(Struct):
    """The body of every error."""

    error: str
    detail: str
    status_code: int


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    """Give the body of an error."""
    return ErrorReply(row.kind, sentence, row.status)
