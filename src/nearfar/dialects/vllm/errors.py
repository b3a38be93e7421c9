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
    errors.SlowBody: (408, _BAD),
    errors.NoModel: (400, _BAD),
    errors.EmptyInput: (400, _BAD),
    errors.TooMany: (400, _BAD),
    errors.TooLong: (400, _BAD),
    errors.TooManyTokens: (400, _BAD),
    errors.BadDimensions: (400, _BAD),
    errors.BadTokenIds: (400, _BAD),
    errors.WrongTask: (400, _BAD),
    errors.UnknownModel: (404, "NotFoundError"),
    errors.UnknownPath: (404, "NotFoundError"),
    errors.WrongMethod: (405, _BAD),
    errors.MissingKey: (401, "Unauthorized"),
    errors.WrongKey: (401, "Unauthorized"),
    errors.Forbidden: (403, "Forbidden"),
    errors.WrongHost: (403, _BAD),
    errors.CallerGone: (499, _BAD),
    errors.ServingError: (500, _FAILED),
    errors.Overloaded: (429, "TooManyRequestsError"),
    errors.DeadlinePassed: (504, _FAILED),
    errors.NotReady: (503, "ServiceUnavailableError"),
    errors.Draining: (503, "ServiceUnavailableError"),
    errors.OutOfMemory: (413, _BAD),
    errors.EngineFailed: (500, _FAILED),
    errors.InternalFault: (500, _FAILED),
}
_PHRASES: dict[type[errors.NearfarError], Callable[[Any], str]] = {
    errors.UnknownModel: lambda error: f"The model `{error.model}` does not exist.",
    errors.ServingError: lambda _: "Internal server error",
    errors.EngineFailed: lambda _: "Internal server error",
    errors.InternalFault: lambda _: "Internal server error",
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
