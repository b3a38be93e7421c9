"""What goes wrong, in vLLM's words, which are OpenAI's shape with kinds of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.base import ErrorRow

if TYPE_CHECKING:
    from collections.abc import Callable

_BAD, _FAILED = "BadRequestError", "InternalServerError"
_KINDS: dict[type[errors.NearfarError], tuple[int, str]] = {
    errors.RequestError: (400, _BAD),
    errors.InputError: (400, _BAD),
    errors.MalformedBody: (400, _BAD),
    errors.BodyTooLarge: (413, _BAD),
    errors.BodyTimeout: (408, _BAD),
    errors.ModelRequired: (400, _BAD),
    errors.EmptyInput: (400, _BAD),
    errors.TooManyItems: (400, _BAD),
    errors.TextTooLong: (400, _BAD),
    errors.TooManyTokens: (400, _BAD),
    errors.InvalidDimensions: (400, _BAD),
    errors.InvalidTokenIds: (400, _BAD),
    errors.WrongTask: (400, _BAD),
    errors.ModelNotFound: (404, "NotFoundError"),
    errors.PathNotFound: (404, "NotFoundError"),
    errors.MethodNotAllowed: (405, _BAD),
    errors.ApiKeyMissing: (401, "Unauthorized"),
    errors.ApiKeyInvalid: (401, "Unauthorized"),
    errors.Forbidden: (403, "Forbidden"),
    errors.HostNotAllowed: (403, _BAD),
    errors.ClientDisconnected: (499, _BAD),
    errors.ServingError: (500, _FAILED),
    errors.Overloaded: (429, "TooManyRequestsError"),
    errors.DeadlineExceeded: (504, _FAILED),
    errors.ModelNotReady: (503, "ServiceUnavailableError"),
    errors.ShuttingDown: (503, "ServiceUnavailableError"),
    errors.DeviceOutOfMemory: (413, _BAD),
    errors.EngineError: (500, _FAILED),
    errors.InternalError: (500, _FAILED),
}
_PHRASES: dict[type[errors.NearfarError], Callable[[Any], str]] = {
    errors.ModelNotFound: lambda error: f"The model `{error.model}` does not exist.",
    errors.ServingError: lambda _: "Internal server error",
    errors.EngineError: lambda _: "Internal server error",
    errors.InternalError: lambda _: "Internal server error",
}
ERRORS = {kind: ErrorRow(status, said, phrase=_PHRASES.get(kind)) for kind, (status, said) in _KINDS.items()}


class Fault(Struct):
    """What went wrong: a sentence, its kind, what is wrong where that has a name, and the status."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorReply(Struct):
    """The body of every error. ``detail`` is where clients of Jina and Voyage look, whose paths these are as well."""

    error: Fault
    detail: str


def render_error(error: errors.NearfarError, row: ErrorRow, sentence: str) -> object:
    """Give the body of an error."""
    param = error.param if isinstance(error, errors.InputError) else None
    return ErrorReply(Fault(sentence, row.kind, param, row.status), sentence)
