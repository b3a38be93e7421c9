"""Errors as vLLM reports them: OpenAI's shape with other types."""

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
    errors.TextTooLong: ErrorRow(
        message=lambda error: (
            f"This model's maximum context length is {error.limit} tokens. However, text {error.index} has "
            f"{error.tokens}. Please reduce the length of the input prompt."
        )
    ),
    errors.HostNotAllowed: ErrorRow(kind=_BAD_REQUEST),
    errors.ServingError: ErrorRow(message=lambda _: "Internal server error"),
}


class ErrorDetail(Struct):
    """One error; ``param`` is the field at fault, if known, and ``code`` the status."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorReply(Struct):
    """The body of every error. Clients of Jina and Voyage, which share some of the paths, read ``detail``."""

    error: ErrorDetail
    detail: str


def render_error(wire: WireError) -> object:
    """Return the body of an error."""
    param = wire.error.param if isinstance(wire.error, errors.InputError) else None
    kind = wire.kind or _KINDS.get(wire.status, _BAD_REQUEST)
    return ErrorReply(ErrorDetail(wire.message, kind, param, wire.status), wire.message)
