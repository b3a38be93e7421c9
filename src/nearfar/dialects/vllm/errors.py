"""What goes wrong, in vLLM's words, which are OpenAI's shape with kinds of its own."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable, WireError

_KINDS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFoundError",
    429: "TooManyRequestsError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
    504: "InternalServerError",
}
_BAD_REQUEST = "BadRequestError"
ERRORS: ErrorTable = {
    errors.ModelNotFound: ErrorRow(message=lambda error: f"The model `{error.model}` does not exist."),
    errors.HostNotAllowed: ErrorRow(kind=_BAD_REQUEST),
    errors.ServingError: ErrorRow(message=lambda _: "Internal server error"),
}


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


def render_error(wire: WireError) -> object:
    """Return the body of an error."""
    param = wire.error.param if isinstance(wire.error, errors.InputError) else None
    kind = wire.kind or _KINDS.get(wire.status, _BAD_REQUEST)
    return ErrorReply(Fault(wire.message, kind, param, wire.status), wire.message)
