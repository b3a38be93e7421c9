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
    errors.BodyTimeout: 408,
    errors.ModelRequired: 422,
    errors.EmptyInput: 422,
    errors.TooManyItems: 422,
    errors.TextTooLong: 422,
    errors.TooManyTokens: 422,
    errors.InvalidDimensions: 422,
    errors.InvalidTokenIds: 422,
    errors.ModelNotFound: 404,
    errors.WrongTask: 400,
    errors.PathNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ApiKeyMissing: 401,
    errors.ApiKeyInvalid: 401,
    errors.Forbidden: 403,
    errors.HostNotAllowed: 403,
    errors.ClientDisconnected: 499,
    errors.Overloaded: 429,
    errors.DeadlineExceeded: 504,
    errors.ModelNotReady: 503,
    errors.ShuttingDown: 503,
    errors.DeviceOutOfMemory: 413,
}
_FAILED = ErrorRow(500, _INTERNAL, phrase=lambda _: "the server failed on this request; its log says why")
ERRORS: dict[type[errors.NearfarError], ErrorRow] = {
    **{kind: ErrorRow(status, _API) for kind, status in _STATUS.items()},
    errors.ServingError: _FAILED,
    errors.EngineError: _FAILED,
    errors.InternalError: _FAILED,
}


class ErrorReply(Struct):
    """The body of every error."""

    error: str
    detail: str
    status_code: int


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:  # noqa: ARG001 — every dialect's signature
    """Give the body of an error."""
    return ErrorReply(row.kind, sentence, row.status)
